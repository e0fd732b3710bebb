{# Where a bar lies in the hour, the day, the week and the funding schedule, in UTC. #}

{% set funding_minutes = 480 %}

with

bars as (

    select
        exchange,
        market,
        symbol,
        interval_minutes,
        opened_at,
        available_at,
        cast(extract(hour from opened_at) as integer) as hour,
        cast({{ day_of_week('opened_at') }} as integer) as day_of_week,
        cast(extract(day from opened_at) as integer) as day_of_month,
        cast(extract(month from opened_at) as integer) as month,
        cast(extract(hour from closed_at) * 60 + extract(minute from closed_at) as integer) as closing_minute

    from {{ ref('int_bars') }}

    where not is_gap

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
        {{ funding_minutes }} - mod(closing_minute, {{ funding_minutes }}) as minutes_to_funding

    from bars

)

select * from final
