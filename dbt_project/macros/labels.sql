{# The price a number of hundredths of a percent above the close. Multiplying first keeps decimal prices exact: 100 + 0.30 % is 100.3. #}
{% macro barrier_price(hundredths) %}close_price * {{ 10000 + hundredths }} / 10000{% endmacro %}


{# The number of the first of the next bars whose price passes a limit, one past the horizon if none does. #}
{% macro first_passage(price, comparison, limit, horizon) -%}
    case
        {%- for bar in range(1, horizon + 1) %}
            when {{ price }}_{{ bar }} {{ comparison }} {{ limit }} then {{ bar }}
        {%- endfor %}
        else {{ horizon + 1 }}
    end
{%- endmacro %}


{# Whether one barrier is passed before the other; a tie inside one bar follows the variable label_tie. #}
{% macro is_first(barrier, opposite, horizon) -%}
    case
        when {{ barrier }} > {{ horizon }} then false
        when {{ barrier }} = {{ opposite }} then {{ var('label_tie') }}
        else {{ barrier }} < {{ opposite }}
    end
{%- endmacro %}


{#
Rows of a relation of bars with the number of the first of the next bars that passes each limit, one past the furthest horizon
if none does; `kept` columns stay. `limits` maps a name to price, comparison and limit. `is_decided_<h>`: the next h bars exist.
#}
{% macro passages_of(relation, kept, horizons, limits) -%}
    {% set furthest = horizons | max -%}
    with next_bars as (

        select
            *,
            {% for horizon in horizons -%}
                coalesce(lead(bars_in_run, {{ horizon }}) over by_series > {{ horizon }}, false) as is_decided_{{ horizon }},
            {% endfor -%}
            {% for bar in range(1, furthest + 1) -%}
                lead(high_price, {{ bar }}) over by_series as high_price_{{ bar }},
                lead(low_price, {{ bar }}) over by_series as low_price_{{ bar }}{{ ',' if not loop.last }}
            {% endfor %}
        from {{ relation }}

        window by_series as (partition by exchange, market, symbol, interval_minutes order by opened_at)

    )

    select
        exchange,
        market,
        symbol,
        interval_minutes,
        opened_at,
        closed_at,
        available_at,
        {% for column in kept -%}
            {{ column }},
        {% endfor -%}
        {% for horizon in horizons -%}
            is_decided_{{ horizon }},
        {% endfor -%}
        {% for name, (price, comparison, limit) in limits.items() -%}
            {{ first_passage(price, comparison, limit, furthest) }} as {{ name }}_passage{{ ',' if not loop.last }}
        {% endfor %}
    from next_bars
{%- endmacro %}
