{# How often the price rose where the model said it would, by tenths of the test part's probabilities. #}

with

labels as (

    select
        exchange,
        market,
        symbol,
        interval_minutes,
        opened_at,
        is_up_5,
        return_5

    from {{ ref('ds_order_flow') }}

    where split = 'test'

),

predictions as (

    select
        exchange,
        market,
        symbol,
        interval_minutes,
        opened_at,
        probability

    from {{ ref('pred_order_flow') }}

    where model_version = {{ ml_model_version(ref('ml_order_flow')) }}

),

judged as (

    select
        predictions.probability,
        labels.return_5,
        case when labels.is_up_5 then 1 else 0 end as is_up,
        ntile(10) over (
            order by
                predictions.probability,
                predictions.opened_at,
                predictions.exchange,
                predictions.market,
                predictions.symbol
        ) as tenth

    from predictions
    inner join labels
        on predictions.exchange = labels.exchange
        and predictions.market = labels.market
        and predictions.symbol = labels.symbol
        and predictions.interval_minutes = labels.interval_minutes
        and predictions.opened_at = labels.opened_at

),

final as (

    select
        tenth,
        count(*) as row_count,
        min(probability) as lowest_probability,
        max(probability) as highest_probability,
        avg(probability) as mean_probability,
        avg(is_up) as share_up,
        avg(probability) - avg(is_up) as overconfidence,
        avg(1e4 * return_5) as mean_return_bps

    from judged

    group by tenth

)

select * from final
order by tenth
