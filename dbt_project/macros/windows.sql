{#
    The window of a series over rows that the import CTE has sorted: `order by exchange, market, symbol, interval_minutes,
    opened_at`. DuckDB reads sorted rows as they come (STREAMING_WINDOW), a tenth of the time of sorting partitions in
    each CTE and hardly any memory: 4.9 s against 78 s for int_bar_averages on 5.3 M rows. There a lag does not stop at
    the start of a series, so what lags give must stay hidden by `if_full` or `lag_in_run` until the window is full.
#}
{% macro sorted_series(group='exchange, market, symbol, interval_minutes', order='opened_at') %}
    {{- return(adapter.dispatch('sorted_series', 'tapehouse')(group, order)) -}}
{% endmacro %}

{% macro default__sorted_series(group, order) %}(){% endmacro %}

{% macro bigquery__sorted_series(group, order) %}(partition by {{ group }} order by {{ order }}){% endmacro %}


{# The rows of a group up to this one, in rows that the CTE before has sorted by both. DuckDB reads them as they come, on from one group to the next: totals must be 0 at the end of each. #}
{% macro up_to_row(group, order) %}{{ return(adapter.dispatch('up_to_row', 'tapehouse')(group, order)) }}{% endmacro %}

{% macro default__up_to_row(group, order) %}(rows between unbounded preceding and current row){% endmacro %}

{# Without a frame, which lead does not take. #}
{% macro bigquery__up_to_row(group, order) %}(partition by {{ group }} order by {{ order }}){% endmacro %}


{# A column some bars before in sorted rows, or, where the series does not reach back so far, anything. #}
{% macro earlier(column, bars=1) %}lag({{ column }}, {{ bars }}) over {{ sorted_series() }}{% endmacro %}


{# A column some bars before in sorted rows; `otherwise` where the run of reported bars does not reach back so far. #}
{% macro lag_in_run(column, bars, otherwise='null') -%}
    case when bars_in_run > {{ bars }} then {{ earlier(column, bars) }}
    {%- if otherwise != 'null' %} else {{ otherwise }}{% endif %} end
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


{# The sum of a column over this row and the `bars` - 1 before it, by explicit lags: the same to the last bit wherever the table starts. #}
{% macro sum_of_lags(column, bars) -%}
    {{ column }}
    {%- for lag in range(1, bars) %} + {{ column }}_lag_{{ lag }}{% endfor %}
{%- endmacro %}


{# The squared deviations from the mean over this row and the `bars` - 1 before it, by explicit lags. #}
{% macro deviation_of_lags(column, total, bars) -%}
    power({{ column }} - {{ total }} / {{ bars }}, 2)
    {%- for lag in range(1, bars) %} + power({{ column }}_lag_{{ lag }} - {{ total }} / {{ bars }}, 2){% endfor %}
{%- endmacro %}


{# The largest (`greatest`) or smallest (`least`) of a column over this row and the `bars` - 1 before it. #}
{% macro extreme_of_lags(function, column, bars) -%}
    {{ function }}({{ column }}{% for age in range(1, bars) %}, {{ earlier(column, age) }}{% endfor %})
{%- endmacro %}


{# A sum over twice as many bars, from the sums over `bars`. #}
{% macro doubled_sum(total, bars) -%}
    {{ earlier(total, bars) }} + {{ total }}
{%- endmacro %}


{# The squared deviations from the mean over twice as many bars (Chan, Golub and LeVeque 1983, pairwise update for equal halves). #}
{% macro doubled_deviation(deviation, total, bars) -%}
    {{ earlier(deviation, bars) }} + {{ deviation }}
    + power({{ total }} - {{ earlier(total, bars) }}, 2) / {{ 2 * bars }}
{%- endmacro %}


{# The sum of position times value over twice as many bars; positions count from 0, the oldest bar. #}
{% macro doubled_moment(moment, total, bars) -%}
    {{ earlier(moment, bars) }} + {{ moment }} + {{ bars }} * {{ total }}
{%- endmacro %}


{# The slope of the least-squares line through the values of `bars` bars at positions 0, 1, …, from their sum and moment. #}
{% macro slope(moment, total, bars) -%}
    (12 * {{ moment }} - {{ 6 * (bars - 1) }} * {{ total }}) / {{ bars * (bars * bars - 1) }}
{%- endmacro %}


{# An expression where the last `bars` bars were all reported, else NULL. #}
{% macro if_full(bars, expression) -%}
    case when bars_in_run >= {{ bars }} then {{ expression }} end
{%- endmacro %}


{# A number for a series of bars, for joins: one integer compares faster than three names. #}
{% macro series_key(relation=none) %}
    {%- set prefix = relation ~ '.' if relation else '' -%}
    {{- return(adapter.dispatch('series_key', 'tapehouse')(
        ['exchange', 'market', 'symbol', 'interval_minutes'] | map('replace', '', prefix, 1) | join(', ')
    )) -}}
{% endmacro %}

{% macro default__series_key(names) %}hash({{ names }}){% endmacro %}

{% macro bigquery__series_key(names) %}farm_fingerprint(to_json_string(({{ names }}))){% endmacro %}


{# The condition of a join of two relations of bars: 3.0 s of processors against 7.9 s by five names, for the parts of feat_stats on 5.3 M rows. #}
{% macro same_bar(left, right) -%}
    {{ series_key(left) }} = {{ series_key(right) }} and {{ left }}.opened_at = {{ right }}.opened_at
{%- endmacro %}
