{# The dataset of the order-flow strategy: features and label of 5-minute bars, split by time with purge and embargo. #}

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

dataset as (

    {{ dataset_of(var('dataset_market'), none, 5, families, 'is_up_5') }}

)

select * from dataset
