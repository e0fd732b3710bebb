{# Technical indicators of finite windows: moving averages, bands, slopes, oscillators, volume. #}

{% set prices = [
    'close_sma_3', 'close_sma_6', 'close_sma_12', 'close_sma_24', 'close_sma_48',
    'close_bbands_20_upper', 'close_bbands_20_middle', 'close_bbands_20_lower', 'vwap_20',
] %}
{% set price_changes = [
    'close_stddev_12', 'close_stddev_24',
    'close_linearreg_slope_3', 'close_linearreg_slope_6', 'close_linearreg_slope_12', 'close_linearreg_slope_24',
] %}

with

bars as (

    select
        exchange,
        market,
        symbol,
        interval_minutes,
        opened_at,
        available_at,
        high_price,
        low_price,
        close_price,
        volume,
        (high_price + low_price + close_price) / 3 * volume as traded_value,
        {{ safe_divide('high_price - low_price', 'close_price') }} * 100 as range_pct,
        bars_in_run

    from {{ ref('int_bars') }}

    where not is_gap

),

lagged as (

    select
        *,
        {% for column in ['close_price', 'volume', 'traded_value', 'range_pct'] -%}
            {% for bars in range(1, 5) -%}
                lag({{ column }}, {{ bars }}) over by_series as {{ column }}_lag_{{ bars }},
            {% endfor -%}
        {% endfor -%}
        lag(close_price, 5) over by_series as close_price_lag_5,
        lag(close_price, 10) over by_series as close_price_lag_10,
        lag(close_price, 20) over by_series as close_price_lag_20,
        max(high_price) over last_14 as highest_price_14,
        min(low_price) over last_14 as lowest_price_14

    from bars

    window
        by_series as (partition by exchange, market, symbol, interval_minutes order by opened_at),
        last_14 as (by_series rows between 13 preceding and current row)

),

totals as (

    select
        *,
        {{ sum_of_lags('close_price', 3) }} as close_total_3,
        close_price_lag_1 + 2 * close_price as close_moment_3,
        {{ sum_of_lags('range_pct', 3) }} as range_total_3,
        {{ sum_of_lags('close_price', 5) }} as close_total_5,
        {{ sum_of_lags('volume', 5) }} as volume_total_5,
        {{ sum_of_lags('traded_value', 5) }} as traded_total_5,
        coalesce(
            {{ safe_divide('close_price - lowest_price_14', 'highest_price_14 - lowest_price_14') }} * 100, 0
        ) as fast_k,
        coalesce(
            {{ safe_divide('close_price - highest_price_14', 'highest_price_14 - lowest_price_14') }} * 100, 0
        ) as williams_r

    from lagged

),

over_3 as (

    select
        *,
        {{ deviation_of_lags('close_price', 'close_total_3', 3) }} as close_deviation_3,
        {{ deviation_of_lags('close_price', 'close_total_5', 5) }} as close_deviation_5,
        (lag(fast_k, 2) over by_series + lag(fast_k, 1) over by_series + fast_k) / 3 as slow_k

    from totals

    window by_series as (partition by exchange, market, symbol, interval_minutes order by opened_at)

),

over_6 as (

    select
        *,
        {{ doubled_sum('close_total_3', 3) }} as close_total_6,
        {{ doubled_moment('close_moment_3', 'close_total_3', 3) }} as close_moment_6,
        {{ doubled_deviation('close_deviation_3', 'close_total_3', 3) }} as close_deviation_6,
        {{ doubled_sum('range_total_3', 3) }} as range_total_6,
        {{ doubled_sum('close_total_5', 5) }} as close_total_10,
        {{ doubled_deviation('close_deviation_5', 'close_total_5', 5) }} as close_deviation_10,
        {{ doubled_sum('volume_total_5', 5) }} as volume_total_10,
        {{ doubled_sum('traded_total_5', 5) }} as traded_total_10,
        (lag(slow_k, 2) over by_series + lag(slow_k, 1) over by_series + slow_k) / 3 as slow_d

    from over_3

    window by_series as (partition by exchange, market, symbol, interval_minutes order by opened_at)

),

over_12 as (

    select
        *,
        {{ doubled_sum('close_total_6', 6) }} as close_total_12,
        {{ doubled_moment('close_moment_6', 'close_total_6', 6) }} as close_moment_12,
        {{ doubled_deviation('close_deviation_6', 'close_total_6', 6) }} as close_deviation_12,
        {{ doubled_sum('range_total_6', 6) }} as range_total_12,
        {{ doubled_sum('close_total_10', 10) }} as close_total_20,
        {{ doubled_deviation('close_deviation_10', 'close_total_10', 10) }} as close_deviation_20,
        {{ doubled_sum('volume_total_10', 10) }} as volume_total_20,
        {{ doubled_sum('traded_total_10', 10) }} as traded_total_20

    from over_6

    window by_series as (partition by exchange, market, symbol, interval_minutes order by opened_at)

),

over_24 as (

    select
        *,
        {{ doubled_sum('close_total_12', 12) }} as close_total_24,
        {{ doubled_moment('close_moment_12', 'close_total_12', 12) }} as close_moment_24,
        {{ doubled_deviation('close_deviation_12', 'close_total_12', 12) }} as close_deviation_24

    from over_12

    window by_series as (partition by exchange, market, symbol, interval_minutes order by opened_at)

),

over_48 as (

    select
        *,
        {{ doubled_sum('close_total_24', 24) }} as close_total_48

    from over_24

    window by_series as (partition by exchange, market, symbol, interval_minutes order by opened_at)

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
            {{ if_full(bars, slope('close_moment_' ~ bars, 'close_total_' ~ bars, bars)) }} as close_linearreg_slope_{{ bars }},
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

    from over_48

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
        exchange,
        market,
        symbol,
        interval_minutes,
        opened_at,
        available_at,
        {% for column in prices -%}
            {{ column }},
            {{ column }} / close_price - 1 as {{ column }}_rel,
        {% endfor -%}
        {% for column in price_changes -%}
            {{ column }},
            {{ column }} / close_price as {{ column }}_rel,
        {% endfor -%}
        {{ safe_divide('close_bbands_20_upper - close_bbands_20_lower', 'close_bbands_20_middle') }} as bbands_20_width,
        {{ safe_divide('close_price - close_bbands_20_lower', 'close_bbands_20_upper - close_bbands_20_lower') }} as bbands_20_pctb,
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

)

select * from final
