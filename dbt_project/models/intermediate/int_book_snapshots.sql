{# What one order-book snapshot shows: imbalances, slopes, walls, spread and depth. #}

with

books as (

    select
        exchange,
        market,
        symbol,
        last_update_id,
        snapshot_at,
        snapshot_on,
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

),

shown as (

    select
        *,
        {{ imbalance('bid_quantity_0', 'ask_quantity_0') }} as level1_imbalance,
        {{ imbalance('bid_depth_5', 'ask_depth_5') }} as imbalance_5,
        {{ imbalance(level_sum('bid_quantities', 10), level_sum('ask_quantities', 10)) }} as imbalance_10,
        {{ imbalance('total_bid_depth', 'total_ask_depth') }} as imbalance_20,
        case
            when {{ level('bid_quantities', 49) }} is not null and {{ level('ask_quantities', 49) }} is not null
                then {{ imbalance(level_sum('bid_quantities', 50), level_sum('ask_quantities', 50)) }}
        end as imbalance_50,
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

final as (

    select
        exchange,
        market,
        symbol,
        last_update_id,
        snapshot_at,
        snapshot_on,
        available_at,
        {{ book_levels() | join(',\n        ') }},
        {{ book_states() | join(',\n        ') }}

    from shown

)

select * from final
