{# A timestamp column of the raw schema as UTC. On DuckDB raw times are timestamptz and become naive UTC, by an
   expression that a filter on the result sees through: 50 M rows in 0.01 s against 2 s with `at time zone`. #}
{% macro utc(column) %}{{ return(adapter.dispatch('utc', 'tapehouse')(column)) }}{% endmacro %}

{% macro default__utc(column) %}make_timestamp(epoch_us({{ column }})){% endmacro %}

{% macro bigquery__utc(column) %}{{ column }}{% endmacro %}


{# The UTC day of a timestamp column of the raw schema. BigQuery leaves out partitions by `date(column)`. #}
{% macro utc_day(column) %}{{ return(adapter.dispatch('utc_day', 'tapehouse')(column)) }}{% endmacro %}

{% macro default__utc_day(column) %}cast({{ utc(column) }} as date){% endmacro %}

{% macro bigquery__utc_day(column) %}date({{ column }}){% endmacro %}


{# A timestamp some minutes later; negative minutes go back. #}
{% macro add_minutes(timestamp, minutes) %}
    {{- return(adapter.dispatch('add_minutes', 'tapehouse')(timestamp, minutes)) -}}
{% endmacro %}

{% macro default__add_minutes(timestamp, minutes) %}({{ timestamp }} + to_minutes({{ minutes }})){% endmacro %}

{% macro bigquery__add_minutes(timestamp, minutes) -%}
    timestamp_add({{ timestamp }}, interval {{ minutes }} minute)
{%- endmacro %}


{# Whole minutes from one timestamp to a later one. #}
{% macro minutes_between(earlier, later) %}
    {{- return(adapter.dispatch('minutes_between', 'tapehouse')(earlier, later)) -}}
{% endmacro %}

{% macro default__minutes_between(earlier, later) %}date_diff('minute', {{ earlier }}, {{ later }}){% endmacro %}

{% macro bigquery__minutes_between(earlier, later) -%}
    timestamp_diff({{ later }}, {{ earlier }}, minute)
{%- endmacro %}


{# When the bar that a timestamp falls into opened; bars are counted from 1970-01-01 00:00 UTC. #}
{% macro bar_opened_at(timestamp, minutes) %}
    {{- return(adapter.dispatch('bar_opened_at', 'tapehouse')(timestamp, minutes)) -}}
{% endmacro %}

{% macro default__bar_opened_at(timestamp, minutes) -%}
    make_timestamp(epoch_us({{ timestamp }}) // 60000000 // {{ minutes }} * {{ minutes }} * 60000000)
{%- endmacro %}

{% macro bigquery__bar_opened_at(timestamp, minutes) -%}
    {%- set length = '(cast(' ~ minutes ~ ' as int64) * 60000000)' -%}
    timestamp_micros(div(unix_micros({{ timestamp }}), {{ length }}) * {{ length }})
{%- endmacro %}


{# Monday is 0. #}
{% macro day_of_week(timestamp) %}{{ return(adapter.dispatch('day_of_week', 'tapehouse')(timestamp)) }}{% endmacro %}

{% macro default__day_of_week(timestamp) %}(extract(isodow from {{ timestamp }}) - 1){% endmacro %}

{% macro bigquery__day_of_week(timestamp) %}mod(extract(dayofweek from {{ timestamp }}) + 5, 7){% endmacro %}
