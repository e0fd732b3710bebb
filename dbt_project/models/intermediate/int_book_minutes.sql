{# Order-book snapshots summed to minutes: the states that they show, and the flows between them. #}

{% set series = ['exchange', 'market', 'symbol'] %}
{% set averaged = book_states() | reject('in', ['mid_price', 'depth_5', 'depth_20']) | list %}
{% set flows = ['ofi_1', 'ofi_5'] %}
{% set changed = changed_from() if is_incremental() %}
{% set first_day = 'snapshot_on >= cast(' ~ add_minutes(changed, -1440) ~ ' as date)' if is_incremental() %}

with

snapshots as (

    select
        {{ series | join(',\n        ') }},
        snapshot_at,
        available_at,
        {{ averaged | join(',\n        ') }}

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
            {% if name == 'snapshots' -%}
                max(available_at) as available_at,
                count(*) as snapshot_count,
            {% else -%}
                {{ ordered_values('last_update_id', 'snapshot_at, last_update_id') }} as update_ids,
            {% endif -%}
            {% for column in columns -%}
                sum({{ exact_product(column) }}) as {{ column }}_sum,
                count({{ column }}) as {{ column }}_count{{ ',' if not loop.last }}
            {% endfor %}
        from {{ name }}

        group by {{ series | join(', ') }}, {{ bar_opened_at('snapshot_at', 1) }}

    ),

{% endfor -%}

final as (

    select
        {{ series | join(',\n        ') }},
        minute_at,
        available_at,
        snapshot_count,
        update_ids,
        {% for column in averaged + flows -%}
            {{ column }}_sum,
            {{ column }}_count{{ ',' if not loop.last }}
        {% endfor %}
    from minutes_of_snapshots
    inner join minutes_of_changes using (exchange, market, symbol, minute_at)

)

select * from final

{% if is_incremental() %} where minute_at >= {{ changed }} {% endif %}
