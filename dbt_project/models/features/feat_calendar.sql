{# Where a bar lies in the day, the week and the funding schedule, in UTC, and how usual its volume is at that hour. #}

{% set changed = changed_from() if is_incremental() %}
{% set funding_minutes = var('funding_interval_minutes') %}
{% set days = var('typical_volume_days') %}

with

bars as (

    select
        exchange,
        market,
        symbol,
        interval_minutes,
        opened_at,
        available_at,
        {{ bar_opened_at('opened_at', 60) }} as hour_at,
        volume,
        cast(extract(hour from opened_at) as integer) as hour,
        cast({{ day_of_week('opened_at') }} as integer) as day_of_week,
        cast(extract(day from opened_at) as integer) as day_of_month,
        cast(extract(month from opened_at) as integer) as month,
        cast(extract(hour from closed_at) * 60 + extract(minute from closed_at) as integer) as closing_minute

    from {{ ref('int_bars') }}

    where not is_gap
        {% if is_incremental() %} and {{ in_lookback(changed) }} {% endif %}

),

hours as (

    select
        exchange,
        market,
        symbol,
        interval_minutes,
        hour_at,
        hour,
        count(*) as bar_count,
        sum({{ exact_amount('volume') }}) as volume_of_hour

    from bars

    group by exchange, market, symbol, interval_minutes, hour_at, hour

),

typical as (

    select
        exchange,
        market,
        symbol,
        interval_minutes,
        hour_at,
        case
            when sum(bar_count) over days_before = {{ days }} * greatest(60 / interval_minutes, 1)
                and {{ minutes_between('min(hour_at) over days_before', 'hour_at') }} = {{ days * 1440 }}
                then cast(sum(volume_of_hour) over days_before as {{ type_float64() }})
                    / sum(bar_count) over days_before
        end as typical_volume

    from hours

    window days_before as (
        partition by exchange, market, symbol, interval_minutes, hour
        order by hour_at
        rows between {{ days }} preceding and 1 preceding
    )

),

final as (

    select
        exchange,
        market,
        symbol,
        interval_minutes,
        opened_at,
        available_at,
        hour,
        day_of_week,
        day_of_week >= 5 as is_weekend,
        month,
        day_of_month >= 28 as is_end_of_month,
        hour < 8 as is_asia_session,
        hour >= 8 and hour < 16 as is_europe_session,
        hour >= 16 as is_us_session,
        sin(2 * acos(-1) * hour / 24) as hour_sin,
        cos(2 * acos(-1) * hour / 24) as hour_cos,
        sin(2 * acos(-1) * day_of_week / 7) as day_of_week_sin,
        cos(2 * acos(-1) * day_of_week / 7) as day_of_week_cos,
        {{ funding_minutes }} - mod(closing_minute, {{ funding_minutes }}) as minutes_to_funding,
        {{ safe_divide('volume', 'typical_volume') }} as volume_vs_typical

    from bars
    left join typical using (exchange, market, symbol, interval_minutes, hour_at)

)

select * from final

{% if is_incremental() %} where opened_at >= {{ changed }} {% endif %}
