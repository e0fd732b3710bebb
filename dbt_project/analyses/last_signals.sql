{# The newest signal of each symbol, from the active model version. #}

with

signals as (

    select
        exchange,
        market,
        symbol,
        interval_minutes,
        closed_at,
        model_version,
        probability,
        threshold,
        signal,
        row_number() over (
            partition by exchange, market, symbol, interval_minutes order by closed_at desc
        ) as place

    from {{ ref('sig_order_flow') }}

    where model_version = {{ ml_model_version(ref('ml_order_flow')) }}

),

final as (

    select
        exchange,
        market,
        symbol,
        interval_minutes,
        closed_at,
        model_version,
        probability,
        threshold,
        case signal when 1 then 'long' when -1 then 'short' else 'none' end as side

    from signals

    where place = 1

)

select * from final
order by exchange, market, symbol, interval_minutes
