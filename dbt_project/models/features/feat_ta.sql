{# Technical indicators: moving averages, bands, slopes, oscillators, volume, volatility. #}

{% set prices = [
    'close_sma_3', 'close_sma_6', 'close_sma_12', 'close_sma_24', 'close_sma_48',
    'close_bbands_20_upper', 'close_bbands_20_middle', 'close_bbands_20_lower', 'vwap_20',
    'close_sma_10', 'close_sma_20', 'close_sma_50', 'close_sma_60', 'close_sma_200', 'close_ema_12', 'close_ema_26',
    'keltner_20_upper', 'keltner_20_middle', 'keltner_20_lower', 'vwap_session', 'volume_profile_poc_96',
] %}
{% set price_changes = [
    'close_stddev_12', 'close_stddev_24',
    'close_linearreg_slope_3', 'close_linearreg_slope_6', 'close_linearreg_slope_12', 'close_linearreg_slope_24',
    'close_macd', 'close_macd_signal', 'close_macd_hist', 'high_low_close_atr_14',
] %}
{% set scale_free = [
    'close_rsi_14', 'atr_pct_14', 'high_low_close_adx_14', 'plus_di_14', 'minus_di_14', 'high_low_close_cci_14',
    'high_low_close_volume_mfi_14', 'close_volume_obv', 'close_volume_obv_rel', 'vol_regime',
] %}
{% set changed = changed_from() if is_incremental() %}

with

windows as (

    select * from {{ ref('int_bar_windows') }}

    {% if is_incremental() %} where opened_at >= {{ changed }} {% endif %}

),

indicators as (

    select * from {{ ref('int_bar_indicators') }}

    {% if is_incremental() %} where opened_at >= {{ changed }} {% endif %}

),

full_windows as (

    select
        exchange,
        market,
        symbol,
        interval_minutes,
        opened_at,
        available_at,
        close_price,
        volume,
        {% for bars in [3, 6, 12, 24, 48] -%}
            {{ if_full(bars, 'close_total_' ~ bars ~ ' / ' ~ bars) }} as close_sma_{{ bars }},
        {% endfor -%}
        {% for bars in [3, 6, 12, 24] -%}
            {{ if_full(bars, slope('close_moment_' ~ bars, 'close_total_' ~ bars, bars)) }}
                as close_linearreg_slope_{{ bars }},
        {% endfor -%}
        {% for bars in [12, 20, 24] -%}
            {{ if_full(bars, 'sqrt(close_deviation_' ~ bars ~ ' / ' ~ bars ~ ')') }} as close_stddev_{{ bars }},
        {% endfor -%}
        {% for bars in [1, 5, 10, 20] -%}
            {{ if_full(bars + 1, '(close_price / close_price_lag_' ~ bars ~ ' - 1) * 100') }} as close_roc_{{ bars }},
        {% endfor -%}
        {% for bars in [3, 6, 12] -%}
            {{ if_full(bars, 'range_total_' ~ bars ~ ' / ' ~ bars) }} as spread_pct_{{ bars }},
        {% endfor -%}
        {{ if_full(20, 'close_total_20 / 20') }} as close_bbands_20_middle,
        {{ if_full(20, 'volume_total_20 / 20') }} as volume_sma_20,
        {{ if_full(20, safe_divide('traded_total_20', 'volume_total_20')) }} as vwap_20,
        {{ if_full(14, 'williams_r') }} as close_willr_14,
        {{ if_full(16, 'slow_k') }} as stoch_k_14_3,
        {{ if_full(18, 'slow_d') }} as stoch_d_3

    from windows

),

bands as (

    select
        *,
        close_bbands_20_middle + 2 * close_stddev_20 as close_bbands_20_upper,
        close_bbands_20_middle - 2 * close_stddev_20 as close_bbands_20_lower

    from full_windows

),

final as (

    select
        bands.exchange,
        bands.market,
        bands.symbol,
        bands.interval_minutes,
        bands.opened_at,
        bands.available_at,
        {% for column in prices -%}
            {{ column }},
            {{ column }} / close_price - 1 as {{ column }}_rel,
        {% endfor -%}
        {% for column in price_changes -%}
            {{ column }},
            {{ column }} / close_price as {{ column }}_rel,
        {% endfor -%}
        {{ scale_free | join(',\n        ') }},
        {{ safe_divide('close_bbands_20_upper - close_bbands_20_lower', 'close_bbands_20_middle') }} as bbands_20_width,
        {{ safe_divide('close_price - close_bbands_20_lower', 'close_bbands_20_upper - close_bbands_20_lower') }}
            as bbands_20_pctb,
        close_roc_1,
        close_roc_5,
        close_roc_10,
        close_roc_20,
        spread_pct_3,
        spread_pct_6,
        spread_pct_12,
        stoch_k_14_3,
        stoch_d_3,
        close_willr_14,
        volume_sma_20,
        {{ safe_divide('volume', 'volume_sma_20') }} - 1 as volume_sma_20_rel

    from bands
    inner join indicators on {{ same_bar('bands', 'indicators') }}

)

select * from final
