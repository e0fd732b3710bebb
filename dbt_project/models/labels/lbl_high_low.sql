{# Which barrier the next bars pass first: a threshold above the close or one below. #}

{% set changed = changed_from() if is_incremental() %}
{% set barriers = var('high_low_barriers') %}
{% set horizons = barriers | map('last') | unique | sort %}
{% set tolerance = var('label_tolerance') %}

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

next_bars as (

    select
        *,
        {% for horizon in horizons -%}
            lead(closed_at, {{ horizon }}) over by_series as closed_at_{{ horizon }},
            lead(bars_in_run, {{ horizon }}) over by_series > {{ horizon }} as is_decided_{{ horizon }},
        {% endfor -%}
        {% for bar in range(1, horizons[-1] + 1) -%}
            lead(high_price, {{ bar }}) over by_series as high_price_{{ bar }},
            lead(low_price, {{ bar }}) over by_series as low_price_{{ bar }}{{ ',' if not loop.last }}
        {% endfor %}
    from bars

    window by_series as (partition by exchange, market, symbol, interval_minutes order by opened_at)

),

passages as (

    select
        *,
        {% for threshold, horizon in barriers -%}
            {% set last_barrier = loop.last -%}
            {% for price, comparison, sign in [('high_price', '>', 1), ('low_price', '<', -1)] -%}
                {{ first_passage(price, comparison, barrier_price(sign * threshold), horizon) }}
                    as {{ price }}_first_{{ threshold }}_{{ horizon }},
                {% if tolerance is none -%}
                    {{ horizon + 1 }}
                {%- else -%}
                    {{ first_passage(price, comparison, barrier_price(sign * threshold * tolerance), horizon) }}
                {%- endif %}
                    as {{ price }}_opposite_{{ threshold }}_{{ horizon }}{{ ',' if not (loop.last and last_barrier) }}
            {% endfor -%}
        {% endfor %}
    from next_bars

),

final as (

    select
        exchange,
        market,
        symbol,
        interval_minutes,
        opened_at,
        available_at,
        {% for threshold, horizon in barriers -%}
            {% set suffix = threshold ~ '_' ~ horizon -%}
            {% set high = is_first('high_price_first_' ~ suffix, 'low_price_opposite_' ~ suffix, horizon) -%}
            {% set low = is_first('low_price_first_' ~ suffix, 'high_price_opposite_' ~ suffix, horizon) -%}
            case when is_decided_{{ horizon }} then {{ high }} end as high_{{ '%03d' % threshold }}_{{ horizon }},
            case when is_decided_{{ horizon }} then {{ low }} end as low_{{ '%03d' % threshold }}_{{ horizon }},
        {% endfor -%}
        {% for horizon in horizons -%}
            case when is_decided_{{ horizon }} then closed_at_{{ horizon }} end
                as high_low_{{ horizon }}_end_at{{ ',' if not loop.last }}
        {% endfor %}
    from passages

)

select * from final

{% if is_incremental() %} where opened_at >= {{ changed }} {% endif %}
