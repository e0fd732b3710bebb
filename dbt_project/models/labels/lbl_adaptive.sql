{# Which barrier the next bars pass first, where the barriers widen and narrow with volatility. #}

{% set changed = changed_from() if is_incremental() %}
{% set horizons = [5, 10, 20, 40] %}
{% set tolerance = var('label_tolerance') %}
{% set upper_opposite, lower_opposite = ('opposite_upper_passage', 'opposite_lower_passage') if tolerance is not none
    else (horizons[-1] + 1, horizons[-1] + 1) %}

with

bars as (

    select
        exchange,
        market,
        symbol,
        interval_minutes,
        opened_at,
        closed_at,
        available_at,
        high_price,
        low_price,
        close_price,
        bars_in_run

    from {{ ref('int_bars') }}

    where not is_gap
        {% if is_incremental() %} and opened_at >= {{ changed }} {% endif %}

),

targets as (

    select
        exchange,
        market,
        symbol,
        interval_minutes,
        opened_at,
        adaptive_target

    from {{ ref('int_adaptive_targets') }}

    {% if is_incremental() %} where opened_at >= {{ changed }} {% endif %}

),

barriers as (

    select
        *,
        close_price * (1 + adaptive_target) as upper_price,
        close_price * (1 - adaptive_target) as lower_price,
        close_price * (1 + adaptive_target * {{ tolerance or 0 }}) as opposite_upper_price,
        close_price * (1 - adaptive_target * {{ tolerance or 0 }}) as opposite_lower_price

    from bars
    inner join targets using (exchange, market, symbol, interval_minutes, opened_at)

),

passages as (

    {{ passages_of('barriers', ['adaptive_target'], horizons, {
        'upper': ('high_price', '>', 'upper_price'),
        'lower': ('low_price', '<', 'lower_price'),
        'opposite_upper': ('high_price', '>', 'opposite_upper_price'),
        'opposite_lower': ('low_price', '<', 'opposite_lower_price'),
    }) }}

),

final as (

    select
        exchange,
        market,
        symbol,
        interval_minutes,
        opened_at,
        available_at,
        adaptive_target,
        {% for horizon in horizons -%}
            {% set up = is_first('upper_passage', lower_opposite, horizon) -%}
            {% set down = is_first('lower_passage', upper_opposite, horizon) -%}
            {% set is_decided = 'is_decided_' ~ horizon ~ ' and adaptive_target > 0' -%}
            case when {{ is_decided }} then {{ up }} end as up_adaptive_{{ horizon }},
            case when {{ is_decided }} then {{ down }} end as down_adaptive_{{ horizon }},
            case when {{ is_decided }} then {{ add_minutes('closed_at', horizon ~ ' * interval_minutes') }} end
                as adaptive_{{ horizon }}_end_at{{ ',' if not loop.last }}
        {% endfor %}
    from passages

)

select * from final

{% if is_incremental() %} where opened_at >= {{ changed }} {% endif %}
