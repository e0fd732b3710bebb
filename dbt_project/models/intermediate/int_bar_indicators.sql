{# Recursive indicators, oscillators and the volume profile by the names of the catalogue. #}

{% set changed = changed_from() if is_incremental() %}

with

averages as (

    select * from {{ ref('int_bar_averages') }}

    {% if is_incremental() %} where opened_at >= {{ changed }} {% endif %}

),

oscillators as (

    select * from {{ ref('int_bar_oscillators') }}

    {% if is_incremental() %} where opened_at >= {{ changed }} {% endif %}

),

sessions as (

    select * from {{ ref('int_bar_sessions') }}

    {% if is_incremental() %} where opened_at >= {{ changed }} {% endif %}

),

profiles as (

    select * from {{ ref('int_volume_profile') }}

    {% if is_incremental() %} where opened_at >= {{ changed }} {% endif %}

),

regimes as (

    select * from {{ ref('int_volatility_regimes') }}

    {% if is_incremental() %} where opened_at >= {{ changed }} {% endif %}

),

final as (

    select
        averages.exchange,
        averages.market,
        averages.symbol,
        averages.interval_minutes,
        averages.opened_at,
        close_sma_10,
        close_sma_20,
        close_sma_50,
        close_sma_60,
        close_sma_200,
        close_ema_12,
        close_ema_26,
        close_macd,
        close_macd_signal,
        close_macd - close_macd_signal as close_macd_hist,
        close_rsi_14,
        high_low_close_atr_14,
        atr_pct_14,
        high_low_close_adx_14,
        plus_di_14,
        minus_di_14,
        close_ema_20 + 2 * high_low_close_atr_10 as keltner_20_upper,
        case when high_low_close_atr_10 is not null then close_ema_20 end as keltner_20_middle,
        close_ema_20 - 2 * high_low_close_atr_10 as keltner_20_lower,
        high_low_close_cci_14,
        high_low_close_volume_mfi_14,
        cast(close_volume_obv as {{ type_float64() }}) as close_volume_obv,
        close_volume_obv_rel,
        vwap_session,
        {{ if_full(96, 'volume_profile_poc_96') }} as volume_profile_poc_96,
        vol_regime

    from averages
    inner join regimes on {{ same_bar('averages', 'regimes') }}
    inner join oscillators on {{ same_bar('averages', 'oscillators') }}
    inner join sessions on {{ same_bar('averages', 'sessions') }}
    left join profiles on {{ same_bar('averages', 'profiles') }}

)

select * from final
