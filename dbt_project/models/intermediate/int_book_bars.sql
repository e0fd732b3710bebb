{# Order-book snapshots aggregated to bars: the last one, the mean, and the one in the middle. #}

{% set states = [
    'mid_price', 'level1_imbalance', 'imbalance_5', 'imbalance_10', 'imbalance_20', 'imbalance_50',
    'depth_5', 'depth_20', 'total_bid_depth', 'total_ask_depth', 'depth_ratio', 'quoted_spread_bps', 'microprice_rel',
    'bid_pressure', 'bid_wall_count', 'bid_wall_ratio', 'bid_max_wall', 'bid_volume_std', 'bid_volume_skew',
    'ask_pressure', 'ask_wall_count', 'ask_wall_ratio', 'ask_max_wall', 'ask_volume_std', 'ask_volume_skew',
] %}
{% set averaged = ['level1_imbalance', 'imbalance_5', 'imbalance_10', 'imbalance_20'] %}
{% set flows = ['ofi_1', 'ofi_5'] %}

with

snapshots as (

    select
        exchange,
        market,
        symbol,
        last_update_id,
        snapshot_at,
        available_at,
        {{ (states + flows) | join(',\n        ') }}

    from {{ ref('int_book_snapshots') }}

),

intervals as (

    {{ rows_of(var('interval_minutes'), 'interval_minutes') }}

),

placed as (

    select
        snapshots.*,
        intervals.interval_minutes,
        {{ bar_opened_at('snapshots.snapshot_at', 'intervals.interval_minutes') }} as opened_at

    from snapshots
    cross join intervals

),

numbered as (

    select
        *,
        row_number() over (
            partition by exchange, market, symbol, interval_minutes, opened_at
            order by snapshot_at, last_update_id
        ) as snapshot_number,
        count(*) over (partition by exchange, market, symbol, interval_minutes, opened_at) as snapshot_count

    from placed

),

final as (

    select
        exchange,
        market,
        symbol,
        interval_minutes,
        opened_at,
        {{ add_minutes('opened_at', 'interval_minutes') }} as closed_at,
        greatest(max(available_at), {{ add_minutes('opened_at', 'interval_minutes') }}) as available_at,
        max(snapshot_count) as snapshot_count,
        {% for column in states -%}
            max(case when snapshot_number = snapshot_count then {{ column }} end) as {{ column }},
        {% endfor -%}
        {% for column in averaged -%}
            {{ safe_divide(ordered_sum(column, 'snapshot_number'), 'count(' ~ column ~ ')') }} as {{ column }}_mean,
            max(case when snapshot_number = floor(snapshot_count / 2) + 1 then {{ column }} end) as {{ column }}_mid,
        {% endfor -%}
        {% for column in flows -%}
            {{ ordered_sum(column, 'snapshot_number') }} as {{ column }},
            {{ safe_divide(
                ordered_sum(column, 'snapshot_number'),
                'max(case when snapshot_number = snapshot_count then depth_20 end)'
            ) }} as {{ column }}_rel{{ ',' if not loop.last }}
        {% endfor %}
    from numbered

    group by exchange, market, symbol, interval_minutes, opened_at

)

select * from final
