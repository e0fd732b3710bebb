{# Whether a row was heard as it happened: what history says of the same event later was not known then. #}
{% macro was_heard() %}source like 'websocket%'{% endmacro %}


{# Of copies of one event the one that was heard, however soon history has it known: what was served stays so. #}
{% macro heard_first() %}case when {{ was_heard() }} then 0 else 1 end{% endmacro %}


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
