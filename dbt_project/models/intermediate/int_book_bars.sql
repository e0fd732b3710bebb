{# Order-book snapshots aggregated to bars: the last, the mean, the one in the middle, and the flows between them. #}

{% set series = ['exchange', 'market', 'symbol'] %}
{% set bar = series + ['interval_minutes', 'opened_at'] %}
{% set averaged = book_states() | reject('in', ['mid_price', 'depth_5', 'depth_20']) | list %}
{% set flows = ['ofi_1', 'ofi_5'] %}
{% set closed_at = add_minutes('bars.opened_at', 'bars.interval_minutes') %}
{% set changed = changed_from() if is_incremental() %}

with

intervals as ({{ rows_of(var('interval_minutes'), 'interval_minutes') }}),

placed as (

    select
        minutes.*,
        intervals.interval_minutes,
        {{ bar_opened_at('minutes.minute_at', 'intervals.interval_minutes') }} as opened_at

    from {{ ref('int_book_minutes') }} as minutes
    cross join intervals

    {% if is_incremental() %} where minutes.minute_at >= {{ changed }} {% endif %}

),

bars as (

    select
        {{ bar | join(',\n        ') }},
        max(available_at) as latest_at,
        cast(sum(snapshot_count) as bigint) as snapshot_count,
        max(minute_at) as last_minute_at,
        max_by({{ level('update_ids', 'snapshot_count - 1') }}, minute_at) as last_id,
        {% for column in averaged + flows -%}
            cast(sum({{ column }}_sum) as {{ type_float64() }}) as {{ column }}_sum,
            sum({{ column }}_count) as {{ column }}_count{{ ',' if not loop.last }}
        {% endfor %}
    from placed
    group by {{ bar | join(', ') }}

),

counted as (

    select
        {{ bar | join(',\n        ') }},
        minute_at,
        update_ids,
        snapshot_count,
        cast(floor(sum(snapshot_count) over bar / 2) as bigint)
        - (sum(snapshot_count) over up_to_minute - snapshot_count) as middle_place

    from placed

    window
        bar as (partition by {{ bar | join(', ') }}),
        up_to_minute as (partition by {{ bar | join(', ') }} order by minute_at)

),

middles as (

    select
        {{ bar | join(',\n        ') }},
        minute_at as mid_minute_at,
        {{ level('update_ids', 'cast(middle_place as bigint)') }} as mid_id

    from counted

    where middle_place between 0 and snapshot_count - 1

),

{# The snapshots that bars show: the last and the middle one of each. #}
wanted as (

    {% for place in ['last', 'mid'] -%}
        select distinct
            {{ series | join(',\n            ') }},
            {{ place }}_minute_at as minute_at,
            {{ place }}_id as last_update_id
        from bars
        inner join middles using ({{ bar | join(', ') }})
        {{ 'union distinct' if not loop.last }}
    {% endfor %}
),

shown as (

    select
        wanted.minute_at,
        snapshots.last_update_id,
        {% for column in series + book_states() -%}
            snapshots.{{ column }}{{ ',' if not loop.last }}
        {% endfor %}
    from {{ ref('int_book_snapshots') }} as snapshots
    inner join wanted
        on {{ same_book('snapshots', 'wanted') }}
        and {{ bar_opened_at('snapshots.snapshot_at', 1) }} = wanted.minute_at
        and snapshots.last_update_id = wanted.last_update_id

    {% if is_incremental() %} where snapshots.snapshot_on >= cast({{ changed }} as date) {% endif %}

),

final as (

    select
        {% for column in bar -%}
            bars.{{ column }},
        {% endfor -%}
        {{ closed_at }} as closed_at,
        greatest(bars.latest_at, {{ closed_at }}) as available_at,
        bars.snapshot_count,
        {% for column in book_states() -%}
            latest.{{ column }},
        {% endfor -%}
        {% for column in averaged -%}
            {{ safe_divide('bars.' ~ column ~ '_sum', 'bars.' ~ column ~ '_count') }} as {{ column }}_mean,
            middle.{{ column }} as {{ column }}_mid,
        {% endfor -%}
        {% for column in flows -%}
            bars.{{ column }}_sum as {{ column }},
            {{ safe_divide(column ~ '_sum', 'latest.depth_20') }} as {{ column }}_rel{{ ',' if not loop.last }}
        {% endfor %}
    from bars
    inner join middles using ({{ bar | join(', ') }})
    {% for name, place in {'latest': 'last', 'middle': 'mid'}.items() -%}
        inner join shown as {{ name }}
            on {{ same_book('bars', name) }}
            and {{ place }}_minute_at = {{ name }}.minute_at
            and {{ place }}_id = {{ name }}.last_update_id
    {% endfor %}
    {# A bar in which the book was lost or found again is none, if that was known when the bar was. #}
    where
        not exists (
            select 1
            from {{ ref('stg_book_gaps') }} as gaps
            where
                {{ same_book('bars', 'gaps') }}
                and bars.opened_at = {{ bar_opened_at('gaps.gap_at', 'bars.interval_minutes') }}
                and greatest(bars.latest_at, {{ closed_at }}) >= gaps.available_at
        )
)

select * from final

{% if is_incremental() %} where opened_at >= {{ changed }} {% endif %}
