{# How many symbols of a market rose in a bar. #}

{% set changed = changed_from() if is_incremental() %}

with

bars as (

    select
        exchange,
        market,
        interval_minutes,
        opened_at,
        available_at,
        return_1

    from {{ ref('int_reference_bars') }}

    where return_1 is not null
        {% if is_incremental() %} and opened_at >= {{ changed }} {% endif %}

),

final as (

    select
        exchange,
        market,
        interval_minutes,
        opened_at,
        max(available_at) as available_at,
        count(*) as symbol_count,
        sum(case when return_1 > 0 then 1 else 0 end) / count(*) as market_breadth

    from bars

    group by exchange, market, interval_minutes, opened_at

)

select * from final

{% if is_incremental() %} where opened_at >= {{ changed }} {% endif %}
