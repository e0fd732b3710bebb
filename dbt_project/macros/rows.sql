{# Every row of a relation as often as its column `times` says, numbered from 0 in the column `repetition`. #}
{% macro repeat_rows(relation, times) %}
    {{- return(adapter.dispatch('repeat_rows', 'tapehouse')(relation, times)) -}}
{% endmacro %}

{% macro default__repeat_rows(relation, times) -%}
    select *, unnest(range({{ times }})) as repetition from {{ relation }}
{%- endmacro %}

{% macro bigquery__repeat_rows(relation, times) -%}
    select * from {{ relation }} cross join unnest(generate_array(0, {{ times }} - 1)) as repetition
{%- endmacro %}


{# A relation of one column with the values of a list. #}
{% macro rows_of(values, column) -%}
    {% for value in values -%}
        select {{ value }} as {{ column }}{{ ' union all ' if not loop.last }}
    {%- endfor %}
{%- endmacro %}
