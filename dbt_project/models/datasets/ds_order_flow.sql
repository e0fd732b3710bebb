{# The dataset of the order-flow strategy: features and label of 5-minute bars, split by time with purge and embargo. #}

{% set interval_minutes = 5 %}
{% set families = {
    'feat_ta': [
        'close_sma_3_rel', 'close_sma_6_rel', 'close_sma_12_rel', 'close_sma_24_rel', 'close_sma_48_rel',
        'close_linearreg_slope_3_rel', 'close_linearreg_slope_6_rel', 'close_linearreg_slope_12_rel',
        'close_linearreg_slope_24_rel', 'close_stddev_12_rel', 'close_stddev_24_rel',
        'bbands_20_width', 'bbands_20_pctb', 'vwap_20_rel', 'volume_sma_20_rel',
        'close_roc_1', 'close_roc_5', 'close_roc_10', 'close_roc_20',
        'spread_pct_3', 'spread_pct_6', 'spread_pct_12', 'stoch_k_14_3', 'stoch_d_3', 'close_willr_14',
    ],
    'feat_orderflow': [
        'level1_imbalance', 'imbalance_5', 'imbalance_10', 'imbalance_20', 'imbalance_change_1',
        'level1_imbalance_mean', 'imbalance_5_mean', 'imbalance_10_mean', 'imbalance_20_mean',
        'bid_pressure_rel', 'ask_pressure_rel', 'bid_wall_ratio', 'ask_wall_ratio', 'bid_max_wall', 'ask_max_wall',
        'bid_volume_skew', 'ask_volume_skew', 'quoted_spread_bps', 'depth_ratio', 'microprice_rel',
        'ofi_1_rel', 'ofi_5_rel', 'depth_velocity_5_rel', 'depth_velocity_20_rel',
    ],
    'feat_microstructure': [
        'taker_buy_ratio', 'trade_size_std_rel', 'trade_size_skew', 'roll_spread_rel', 'cumulative_delta_288_rel',
    ],
    'feat_calendar': ['hour_sin', 'hour_cos', 'day_of_week_sin', 'day_of_week_cos', 'minutes_to_funding'],
} %}

with

bars as (

    select
        exchange,
        market,
        symbol,
        interval_minutes,
        opened_at,
        closed_at,
        available_at

    from {{ ref('int_bars') }}

    where interval_minutes = {{ interval_minutes }} and market = '{{ var("dataset_market") }}' and not is_gap

),

{% for family, columns in families.items() %}

{{ family }} as (

    select
        exchange,
        market,
        symbol,
        interval_minutes,
        opened_at,
        available_at as {{ family }}_available_at,
        {{ columns | join(',\n        ') }}

    from {{ ref(family) }}

),

{% endfor %}

labels as (

    select
        exchange,
        market,
        symbol,
        interval_minutes,
        opened_at,
        return_5,
        return_5_end_at as label_end_at,
        case when return_5 <> 0 then return_5 > 0 end as is_up_5

    from {{ ref('lbl_return') }}

),

joined as (

    select *

    from bars
    {% for family in families -%}
        inner join {{ family }} using (exchange, market, symbol, interval_minutes, opened_at)
    {% endfor -%}
    left join labels using (exchange, market, symbol, interval_minutes, opened_at)

),

parts as (

    {{ time_parts('joined', 'is_up_5') }}

),

final as (

    select
        exchange,
        market,
        symbol,
        interval_minutes,
        opened_at,
        closed_at,
        greatest(
            available_at,
            {% for family in families -%}
                {{ family }}_available_at{{ ',' if not loop.last }}
            {% endfor %}
        ) as available_at,
        {% for column in families.values() | sum(start=[]) -%}
            cast({{ column }} as {{ type_float32() }}) as {{ column }},
        {% endfor -%}
        is_up_5,
        return_5,
        label_end_at,
        {{ split_of('is_up_5', interval_minutes) }} as split,
        {{ fold_of('is_up_5') }} as fold

    from joined
    cross join parts

)

select * from final
