{#
Every row of `bars` with the row of a slower series that was the latest known at the bar's `available_at`.

Of the rows of `series` that had arrived by then (their `available_at` is not after that of the bar) the one with the latest
`event_at` is taken, in whatever order they arrived; of two with one event time the one that arrived later. Its columns are
NULL where that event is more than `staleness_minutes` older than the bar's `available_at`, so no event before that limit
can change the result. Keys, event time and arrival together must be unique in `series`; without keys it is one series for all.
#}
{% macro as_of_join(bars, series, keys, event_at, columns, staleness_minutes) -%}
    {{ return(adapter.dispatch('as_of_join', 'tapehouse')(bars, series, keys, event_at, columns, staleness_minutes)) }}
{%- endmacro %}

{% macro default__as_of_join(bars, series, keys, event_at, columns, staleness_minutes) -%}
    with {{ updates_of(series, keys, event_at, columns) }},

    as_of_moments as (

        select
            {{ (keys + ['available_at']) | join(', ') }},
            available_at as updated_at,
            0 as is_bar

        from as_of_updates

        union all

        select distinct
            {{ (keys + ['available_at']) | join(', ') }},
            cast(null as timestamp) as updated_at,
            1 as is_bar

        from {{ bars }}

    ),

    as_of_latest as (

        select
            *,
            last_value(updated_at ignore nulls) over (
                {{ partitioned_by(keys) }}order by available_at, is_bar
                rows between unbounded preceding and current row
            ) as latest_updated_at

        from as_of_moments

    )

    select
        {{ bars }}.*,
        {{ fresh_columns(bars, event_at, columns, staleness_minutes) }}

    from {{ bars }}
    left join as_of_latest
        on {{ equal_keys('as_of_latest', bars, keys) }}as_of_latest.available_at = {{ bars }}.available_at
        and as_of_latest.is_bar = 1
    left join as_of_updates
        on {{ equal_keys('as_of_updates', 'as_of_latest', keys) }}as_of_updates.available_at = as_of_latest.latest_updated_at
{%- endmacro %}

{% macro duckdb__as_of_join(bars, series, keys, event_at, columns, staleness_minutes) -%}
    with {{ updates_of(series, keys, event_at, columns) }}

    select
        {{ bars }}.*,
        {{ fresh_columns(bars, event_at, columns, staleness_minutes) }}

    from {{ bars }}
    asof left join as_of_updates
        on {{ equal_keys('as_of_updates', bars, keys) }}{{ bars }}.available_at >= as_of_updates.available_at
{%- endmacro %}


{# The rows of a series that told of a later event than all before them, or corrected the latest: one per moment of arrival. #}
{% macro updates_of(series, keys, event_at, columns) -%}
    as_of_arrivals as (

        select
            {{ (keys + ['available_at', event_at] + columns) | unique | join(',\n            ') }},
            max({{ event_at }}) over (
                {{ partitioned_by(keys) }}order by available_at, {{ event_at }}
                rows between unbounded preceding and 1 preceding
            ) as known_event_at,
            lead(available_at) over (
                {{ partitioned_by(keys) }}order by available_at, {{ event_at }}
            ) as next_available_at

        from {{ series }}

    ),

    as_of_updates as (

        select *

        from as_of_arrivals

        where {{ event_at }} >= coalesce(known_event_at, {{ event_at }})
            and available_at is distinct from next_available_at

    )
{%- endmacro %}

{% macro fresh_columns(bars, event_at, columns, staleness_minutes) -%}
    {% set limit = add_minutes(bars ~ '.available_at', -staleness_minutes) -%}
    {% for column in columns -%}
        case when as_of_updates.{{ event_at }} >= {{ limit }} then as_of_updates.{{ column }} end as {{ column }}
        {{- ',\n        ' if not loop.last }}
    {%- endfor %}
{%- endmacro %}

{% macro partitioned_by(keys) %}{% if keys %}partition by {{ keys | join(', ') }} {% endif %}{% endmacro %}

{% macro equal_keys(first, second, keys) -%}
    {% for key in keys %}{{ first }}.{{ key }} = {{ second }}.{{ key }} and {% endfor %}
{%- endmacro %}
