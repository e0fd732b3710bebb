{# What one order-book snapshot shows: imbalances, slopes, walls, spread, depth, and the flow since the one before. #}

{% set states = [
    'mid_price', 'level1_imbalance', 'imbalance_5', 'imbalance_10', 'imbalance_20', 'imbalance_50',
    'depth_5', 'depth_20', 'total_bid_depth', 'total_ask_depth', 'depth_ratio', 'quoted_spread_bps', 'microprice_rel',
    'bid_pressure', 'bid_wall_count', 'bid_wall_ratio', 'bid_max_wall', 'bid_volume_std', 'bid_volume_skew',
    'ask_pressure', 'ask_wall_count', 'ask_wall_ratio', 'ask_max_wall', 'ask_volume_std', 'ask_volume_skew',
] %}
{% set changed = changed_from() if is_incremental() %}

with

books as (

    select
        exchange,
        market,
        symbol,
        last_update_id,
        snapshot_at,
        available_at,
        bid_prices,
        bid_quantities,
        ask_prices,
        ask_quantities,
        ({{ level('bid_prices', 0) }} + {{ level('ask_prices', 0) }}) / 2 as mid_price,
        {{ level_sum('bid_quantities', 5) }} as bid_depth_5,
        {{ level_sum('ask_quantities', 5) }} as ask_depth_5,
        {{ level_sum('bid_quantities', 20) }} as total_bid_depth,
        {{ level_sum('ask_quantities', 20) }} as total_ask_depth,
        {% for side in ['bid', 'ask'] -%}
            {% for number in range(5) -%}
                {{ level(side ~ '_prices', number) }} as {{ side }}_price_{{ number }},
                {{ level(side ~ '_quantities', number) }} as {{ side }}_quantity_{{ number }},
            {% endfor -%}
            {{ level_moment(side ~ '_quantities', 10, 2) }} as {{ side }}_second_moment,
            {{ level_moment(side ~ '_quantities', 10, 3) }} as {{ side }}_third_moment{{ ',' if not loop.last }}
        {% endfor %}
    from {{ ref('stg_books') }}

    {% if is_incremental() %} where snapshot_on >= cast({{ add_minutes(changed, -1440) }} as date) {% endif %}

),

shown as (

    select
        *,
        {{ imbalance('bid_quantity_0', 'ask_quantity_0') }} as level1_imbalance,
        {{ imbalance('bid_depth_5', 'ask_depth_5') }} as imbalance_5,
        {{ imbalance(level_sum('bid_quantities', 10), level_sum('ask_quantities', 10)) }} as imbalance_10,
        {{ imbalance('total_bid_depth', 'total_ask_depth') }} as imbalance_20,
        {{ imbalance(level_sum('bid_quantities', 50), level_sum('ask_quantities', 50)) }} as imbalance_50,
        bid_depth_5 + ask_depth_5 as depth_5,
        total_bid_depth + total_ask_depth as depth_20,
        {{ safe_divide('total_bid_depth', 'total_ask_depth') }} as depth_ratio,
        (ask_price_0 - bid_price_0) / mid_price * 10000 as quoted_spread_bps,
        {% for side in ['bid', 'ask'] -%}
            {% set quantities = side ~ '_quantities' -%}
            {% set wall = '2 * total_' ~ side ~ '_depth / 20' -%}
            {{ depth_slope(side ~ '_prices', quantities, 10) }} as {{ side }}_pressure,
            {{ wall_count(quantities, wall, 20) }} as {{ side }}_wall_count,
            {{ safe_divide(wall_sum(quantities, wall, 20), 'total_' ~ side ~ '_depth') }} as {{ side }}_wall_ratio,
            {{ safe_divide('20 * ' ~ largest_level(quantities, 20), 'total_' ~ side ~ '_depth') }}
                as {{ side }}_max_wall,
            sqrt({{ side }}_second_moment / 10) as {{ side }}_volume_std,
            {{ safe_divide(side ~ '_third_moment / 10', 'power(' ~ side ~ '_second_moment / 10, 15e-1)') }}
            * sqrt(90) / 8 as {{ side }}_volume_skew,
        {% endfor -%}
        {{ safe_divide(
            'ask_price_0 * bid_quantity_0 + bid_price_0 * ask_quantity_0', 'bid_quantity_0 + ask_quantity_0'
        ) }} / mid_price - 1 as microprice_rel

    from books

),

neighbours as (

    select
        exchange,
        market,
        symbol,
        last_update_id,
        snapshot_at,
        available_at,
        {{ states | join(',\n        ') }},
        lag(snapshot_at) over by_symbol as previous_snapshot_at,
        {% for side in ['bid', 'ask'] -%}
            {% set last_side = loop.last -%}
            {% for number in range(5) -%}
                {% for kind in ['price', 'quantity'] -%}
                    {% set column = side ~ '_' ~ kind ~ '_' ~ number -%}
                    {{ column }},
                    lag({{ column }}) over by_symbol as previous_{{ column }}
                    {{- ',' if not (loop.last and last_side and number == 4) }}
                {% endfor -%}
            {% endfor -%}
        {% endfor %}
    from shown

    window by_symbol as (partition by exchange, market, symbol order by snapshot_at, last_update_id)

),

final as (

    select
        exchange,
        market,
        symbol,
        last_update_id,
        snapshot_at,
        available_at,
        {{ states | join(',\n        ') }},
        {% for levels in [1, 5] -%}
            case
                when {{ minutes_between('previous_snapshot_at', 'snapshot_at') }} <= {{ var('book_flow_minutes') }}
                    then {{ order_flow(levels) }}
            end as ofi_{{ levels }}{{ ',' if not loop.last }}
        {% endfor %}
    from neighbours

)

select * from final

{% if is_incremental() %} where snapshot_at >= {{ changed }} {% endif %}
