{#
    The largest so far of a moment of a series, in rows that the CTE before has sorted by `series_key` and `opened_at`; of the first row
    of a series it is not NULL. DuckDB reads sorted rows as they come, on from one series to the next, so there the number of the
    series comes first in what is compared.
#}
{% macro latest_so_far(moment) %}{{ return(adapter.dispatch('latest_so_far', 'tapehouse')(moment)) }}{% endmacro %}

{% macro default__latest_so_far(moment) -%}
    make_timestamp(cast(
        max(cast(series_key as hugeint) * 4611686018427387904 + epoch_us({{ moment }}))
            over (rows between unbounded preceding and current row)
        % 4611686018427387904 as bigint
    ))
{%- endmacro %}

{% macro bigquery__latest_so_far(moment) -%}
    max({{ moment }}) over (partition by series_key order by opened_at rows between unbounded preceding and current row)
{%- endmacro %}


{# A column some bars before in rows that the CTE before has sorted by `series_key` and `opened_at`; NULL before the series begins. #}
{% macro earlier_in_series(column, bars=1) %}
    {{- return(adapter.dispatch('earlier_in_series', 'tapehouse')(column, bars)) -}}
{% endmacro %}

{% macro default__earlier_in_series(column, bars) -%}
    case when lag(series_key, {{ bars }}) over () = series_key then lag({{ column }}, {{ bars }}) over () end
{%- endmacro %}

{% macro bigquery__earlier_in_series(column, bars) -%}
    lag({{ column }}, {{ bars }}) over (partition by series_key order by opened_at)
{%- endmacro %}


{# A column of the next row of a series in rows that the CTE before has sorted by `series_key` and `opened_at`; NULL at its end. #}
{% macro later_in_series(column) %}{{ return(adapter.dispatch('later_in_series', 'tapehouse')(column)) }}{% endmacro %}

{% macro default__later_in_series(column) -%}
    case when lead(series_key) over () = series_key then lead({{ column }}) over () end
{%- endmacro %}

{% macro bigquery__later_in_series(column) -%}
    lead({{ column }}) over (partition by series_key order by opened_at)
{%- endmacro %}


{# How many bars before this one, at most so many, the latest moment lies in sorted rows of the series; NULL if it lies before `first`. #}
{% macro age_of_latest(moment, first, bars) -%}
    case
        when {{ moment }} >= {{ first }} then 0
        {% for age in range(1, bars + 1) -%}
            when {{ earlier_in_series(moment, age) }} >= {{ first }} then {{ age }}
        {% endfor -%}
    end
{%- endmacro %}


{# A column so many bars before as the column `age` says, at most `bars`, in sorted rows; NULL where the age is NULL. #}
{% macro earlier_by(age, column, bars) -%}
    case {{ age }}
        when 0 then {{ column }}
        {% for bar in range(1, bars + 1) -%}
            when {{ bar }} then {{ earlier(column, bar) }}
        {% endfor -%}
    end
{%- endmacro %}
