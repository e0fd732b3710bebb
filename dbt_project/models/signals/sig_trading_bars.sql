{# What a position gains or pays on each bar of the validation and of the test part. #}

{% set series = 'exchange, market, symbol, interval_minutes' %}
{% set model = ref('ml_order_flow') %}
{% set dataset = ref('ds_order_flow') %}

with

labelled as (

    select
        {{ series }},
        closed_at,
        label_end_at,
        split as part,
        min(closed_at) over (partition by split) as part_start_at

    from {{ dataset }}

    where
        split = 'validation' and closed_at >= {{ ml_train_end_at(model) }}
        or split = 'test' and closed_at >= {{ ml_validation_end_at(model) }}

),

parts as (

    select
        {{ series }},
        part,
        case when part = 'test' then min(part_start_at) else min(closed_at) end as start_at,
        {# The test goes on to the newest bar. #}
        case when part = 'validation' then max(label_end_at) end as end_at

    from labelled

    group by {{ series }}, part

),

bars as (

    select
        bars.exchange,
        bars.market,
        bars.symbol,
        bars.interval_minutes,
        parts.part,
        bars.opened_at,
        bars.closed_at,
        bars.close_price

    from {{ ref('int_bars') }} as bars
    inner join parts
        on bars.exchange = parts.exchange
        and bars.market = parts.market
        and bars.symbol = parts.symbol
        and bars.interval_minutes = parts.interval_minutes
        and bars.closed_at >= parts.start_at
        and (parts.end_at is null or bars.closed_at <= parts.end_at)

),

intervals as (

    select distinct interval_minutes from parts

),

paid as (

    select
        fundings.exchange,
        fundings.market,
        fundings.symbol,
        intervals.interval_minutes,
        {{ bar_opened_at('fundings.funded_at', 'intervals.interval_minutes') }} as opened_at,
        fundings.funding_rate

    from {{ ref('int_funding') }} as fundings
    cross join intervals

),

fundings as (

    select
        {{ series }},
        opened_at,
        sum(funding_rate) as funding_rate

    from paid

    group by {{ series }}, opened_at

),

known as (

    select
        *,
        coalesce(lag(close_price) over by_series is not null, false) as is_tradable,
        close_price / last_value(close_price ignore nulls) over (
            by_series rows between unbounded preceding and 1 preceding
        ) - 1 as bar_return

    from bars

    window by_series as (partition by part, {{ series }} order by opened_at)

),

final as (

    select
        {{ series }},
        part,
        opened_at,
        closed_at,
        is_tradable,
        bar_return,
        coalesce(funding_rate, 0) as funding_rate

    from known
    left join fundings using ({{ series }}, opened_at)

)

select * from final
