{# When a row of a series and all rows before it had arrived; a value computed from them was not known sooner. In any order of rows the same. #}
{% macro arrived_with_all_before(available_at) -%}
    max({{ available_at }}) over (
        partition by exchange, market, symbol, interval_minutes
        order by opened_at
        rows between unbounded preceding and current row
    )
{%- endmacro %}
