"""Columns that are NULL in every row that parity compares, synthetic and recorded together.

Every column of a feature and a label has values; what has none is a dataset's copy of one, where
the series of its strategy are too short for its window, or have no books, trades or funding. Any
other column without a value fails the run, and so does one of these that gets one.
"""

_SHORT = "the strategy's series are too short for its window, or have no books, trades or funding"
_DATASETS = {
    "ds_adaptive": """
        high_low_close_adx_14 vol_regime up_adaptive_10 label_end_at split fold
    """,
    "ds_five_classes": """
        high_low_close_adx_14 vol_regime garch_volatility_1
    """,
    "ds_momentum": """
        close_ema_26_rel close_macd_rel close_macd_signal_rel close_macd_hist_rel
        high_low_close_atr_14_rel close_rsi_14 atr_pct_14 high_low_close_adx_14 plus_di_14
        minus_di_14 vol_regime garch_volatility_1
    """,
    "ds_order_flow_sol": """
        close_ema_12_rel close_ema_26_rel keltner_20_upper_rel keltner_20_middle_rel
        keltner_20_lower_rel close_macd_rel close_macd_signal_rel close_macd_hist_rel
        high_low_close_atr_14_rel close_rsi_14 atr_pct_14 high_low_close_adx_14 plus_di_14
        minus_di_14 vol_regime level1_imbalance imbalance_5 imbalance_10 imbalance_20
        imbalance_50 bid_wall_count bid_wall_ratio bid_max_wall ask_wall_count
        ask_wall_ratio ask_max_wall quoted_spread_bps bid_volume_skew ask_volume_skew
        depth_ratio microprice_rel bid_pressure_rel ask_pressure_rel level1_imbalance_mean
        level1_imbalance_mid imbalance_5_mean imbalance_5_mid imbalance_10_mean
        imbalance_10_mid imbalance_20_mean imbalance_20_mid imbalance_50_mean
        imbalance_50_mid bid_wall_count_mean bid_wall_count_mid bid_wall_ratio_mean
        bid_wall_ratio_mid bid_max_wall_mean bid_max_wall_mid ask_wall_count_mean
        ask_wall_count_mid ask_wall_ratio_mean ask_wall_ratio_mid ask_max_wall_mean
        ask_max_wall_mid quoted_spread_bps_mean quoted_spread_bps_mid bid_volume_skew_mean
        bid_volume_skew_mid ask_volume_skew_mean ask_volume_skew_mid depth_ratio_mean
        depth_ratio_mid microprice_rel_mean microprice_rel_mid ofi_1_rel ofi_5_rel
        depth_velocity_5_rel depth_velocity_20_rel imbalance_change_1 large_trade_count_rel
        large_trade_ratio trade_size_mean_rel trade_size_std_rel trade_size_skew
        trade_frequency_rel price_impact_rel roll_spread_rel cumulative_delta_288_rel vpin
        volume_vs_typical
    """,
    "ds_order_flow_xrp": """
        close_ema_26_rel close_macd_rel close_macd_signal_rel close_macd_hist_rel
        high_low_close_atr_14_rel close_rsi_14 atr_pct_14 high_low_close_adx_14 plus_di_14
        minus_di_14 vol_regime level1_imbalance imbalance_5 imbalance_10 imbalance_20
        imbalance_50 bid_wall_count bid_wall_ratio bid_max_wall ask_wall_count
        ask_wall_ratio ask_max_wall quoted_spread_bps bid_volume_skew ask_volume_skew
        depth_ratio microprice_rel bid_pressure_rel ask_pressure_rel level1_imbalance_mean
        level1_imbalance_mid imbalance_5_mean imbalance_5_mid imbalance_10_mean
        imbalance_10_mid imbalance_20_mean imbalance_20_mid imbalance_50_mean
        imbalance_50_mid bid_wall_count_mean bid_wall_count_mid bid_wall_ratio_mean
        bid_wall_ratio_mid bid_max_wall_mean bid_max_wall_mid ask_wall_count_mean
        ask_wall_count_mid ask_wall_ratio_mean ask_wall_ratio_mid ask_max_wall_mean
        ask_max_wall_mid quoted_spread_bps_mean quoted_spread_bps_mid bid_volume_skew_mean
        bid_volume_skew_mid ask_volume_skew_mean ask_volume_skew_mid depth_ratio_mean
        depth_ratio_mid microprice_rel_mean microprice_rel_mid ofi_1_rel ofi_5_rel
        depth_velocity_5_rel depth_velocity_20_rel imbalance_change_1 trade_imbalance
        buy_sell_ratio taker_buy_ratio trade_imbalance_autocorrelation_1
        large_trade_count_rel large_trade_ratio trade_size_mean_rel trade_size_std_rel
        trade_size_skew trade_frequency_rel price_impact_rel kyle_lambda_rel roll_spread_rel
        amihud_20_rel amihud_60_rel cumulative_delta_day_rel cumulative_delta_288_rel vpin
    """,
    "ds_regression": """
        high_low_close_adx_14 vol_regime garch_volatility_1
    """,
    "ds_trend": """
        close_sma_200_rel close_ema_12_rel close_ema_26_rel keltner_20_upper_rel
        keltner_20_middle_rel keltner_20_lower_rel volume_profile_poc_96_rel close_macd_rel
        close_macd_signal_rel close_macd_hist_rel high_low_close_atr_14_rel close_rsi_14
        atr_pct_14 high_low_close_adx_14 plus_di_14 minus_di_14 vol_regime funding_rate
        funding_rate_ma_24h funding_rate_change funding_regime oi_change_pct
        liquidation_ratio basis
    """,
    "ds_triple_barrier": """
        close_ema_12_rel close_ema_26_rel keltner_20_upper_rel keltner_20_middle_rel
        keltner_20_lower_rel close_macd_rel close_macd_signal_rel close_macd_hist_rel
        high_low_close_atr_14_rel close_rsi_14 atr_pct_14 high_low_close_adx_14 plus_di_14
        minus_di_14 vol_regime log_return_mean_240 log_return_std_240 log_return_skew_240
        log_return_kurtosis_240 log_return_zscore_240 log_return_q10_240 log_return_q25_240
        log_return_q50_240 log_return_q75_240 log_return_q90_240 trend_strength_240
        hurst_256 realised_volatility_288 drawdown_288 garch_volatility_1 beta_288
        correlation_288
    """,
}
ALL_NULL = {
    f"{table}.{column}": _SHORT
    for table, columns in _DATASETS.items()
    for column in columns.split()
} | {
    "sig_ensembles.vol_regime": "the regime of bars of a dataset is known after 2,528 of them",
    "sig_order_flow_shuffled.threshold": "of a model without an edge no threshold may earn a thing",
    "trd_evaluation.sharpe": "a year's needs more days than the test part has",
}
# It depends on what the model without an edge learned by chance.
SOMETIMES_NULL = {"sig_order_flow_shuffled.threshold"}
