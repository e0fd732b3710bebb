{# Order-book snapshots aggregated to bars: the last, the mean, the one in the middle, and the flows between them. #}

{% set series = ['exchange', 'market', 'symbol'] %}
{% set averaged = book_states() | reject('in', ['mid_price', 'depth_5', 'depth_20']) | list %}
{% set flows = ['ofi_1', 'ofi_5'] %}
{% set closed_at = add_minutes('bars.opened_at', 'bars.interval_minutes') %}
{% set changed = changed_from() if is_incremental() %}
{% set first_day = 'snapshot_on >= cast(' ~ add_minutes(changed, -1440) ~ ' as date)' if is_incremental() %}

with

snapshots as (

    select
        {{ series | join(',\n        ') }},
        snapshot_at,
        last_update_id,
        available_at,
        {{ book_states() | join(',\n        ') }}

    from {{ ref('int_book_snapshots') }}

    {% if is_incremental() %} where snapshot_on >= cast({{ changed }} as date) {% endif %}

),

changes as (

    {{ book_flows(ref('int_book_snapshots'), first_day) }}

    {% if is_incremental() %} where snapshot_at >= {{ changed }} {% endif %}

),

{# Sums are of decimal numbers, exact in any order, so that minutes add up to bars. #}
{% for name, columns in {'snapshots': averaged, 'changes': flows}.items() -%}
    minutes_of_{{ name }} as (

        select
            {{ series | join(',\n            ') }},
            {{ bar_opened_at('snapshot_at', 1) }} as minute_at,
            max({{ 'available_at' if name == 'snapshots' else 'snapshot_number' }}) as latest_value,
            count(*) as snapshot_count,
            {% for column in columns -%}
                sum({{ exact_product(column) }}) as {{ column }}_sum,
                count({{ column }}) as {{ column }}_count{{ ',' if not loop.last }}
            {% endfor %}
        from {{ name }}

        group by {{ series | join(', ') }}, {{ bar_opened_at('snapshot_at', 1) }}

    ),

{% endfor -%}

bars as (

    select
        {{ series | join(',\n        ') }},
        interval_minutes,
        {{ bar_opened_at('minute_at', 'interval_minutes') }} as opened_at,
        max(minutes_of_snapshots.latest_value) as latest_at,
        cast(sum(minutes_of_snapshots.snapshot_count) as bigint) as snapshot_count,
        max(minutes_of_changes.latest_value) as last_number,
        max(minutes_of_changes.latest_value) - cast(ceil(sum(minutes_of_snapshots.snapshot_count) / 2) as bigint) + 1
            as mid_number,
        {% for column in averaged + flows -%}
            cast(sum({{ column }}_sum) as {{ type_float64() }}) as {{ column }}_sum,
            sum({{ column }}_count) as {{ column }}_count{{ ',' if not loop.last }}
        {% endfor %}
    from ({{ rows_of(var('interval_minutes'), 'interval_minutes') }}) as intervals
    cross join minutes_of_snapshots
    inner join minutes_of_changes using (exchange, market, symbol, minute_at)

    group by {{ series | join(', ') }}, interval_minutes, {{ bar_opened_at('minute_at', 'interval_minutes') }}

),

{# The snapshots that bars show: the last and the middle one of each. #}
wanted as (

    {% for number in ['last_number', 'mid_number'] -%}
        select
            {{ series | join(',\n            ') }},
            {{ number }} as snapshot_number
        from bars
        {{ 'union all' if not loop.last }}
    {% endfor %}
),

chosen as (

    select distinct changes.*
    from changes
    inner join wanted using (exchange, market, symbol, snapshot_number)

),

shown as (

    select
        snapshots.*,
        chosen.snapshot_number
    from snapshots
    inner join chosen using (exchange, market, symbol, snapshot_at, last_update_id)

),

final as (

    select
        {% for column in series + ['interval_minutes', 'opened_at'] -%}
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
            {{ safe_divide('bars.' ~ column ~ '_sum', 'latest.depth_20') }} as {{ column }}_rel
            {{- ',' if not loop.last }}
        {% endfor %}
    from bars
    {% for name, number in {'latest': 'last_number', 'middle': 'mid_number'}.items() -%}
        inner join shown as {{ name }}
            on {{ same_book('bars', name) }}
            and bars.{{ number }} = {{ name }}.snapshot_number
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
