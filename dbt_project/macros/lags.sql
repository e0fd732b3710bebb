{# The sum of a column over this row and the `rows` - 1 before it in the window `by_symbol`, by explicit lags. For short tables. #}
{% macro sum_over_lags(column, rows) -%}
    {{ column }}
    {%- for lag in range(1, rows) %} + lag({{ column }}, {{ lag }}) over by_symbol{% endfor %}
{%- endmacro %}


{# How many values of this row and the `rows` - 1 before it compare so with this row's value. For short tables. #}
{% macro count_over_lags(column, comparison, rows) -%}
    {% for lag in range(rows) -%}
        case when lag({{ column }}, {{ lag }}) over by_symbol {{ comparison }} {{ column }} then 1 else 0 end
        {{- ' + ' if not loop.last }}
    {%- endfor %}
{%- endmacro %}
