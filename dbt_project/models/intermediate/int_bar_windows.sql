{# Running totals of bars over the windows of technical indicators, each from the totals over half as many bars. #}

{% set changed = changed_from() if is_incremental() %}
{% set layers = [
    {'bars': 6, 'halves': [3, 5], 'totals': [('close', 3), ('range', 3), ('close', 5), ('volume', 5), ('traded', 5)]},
    {'bars': 12, 'halves': [6, 10], 'totals': [
        ('close', 6), ('range', 6), ('close', 10), ('volume', 10), ('traded', 10),
    ]},
    {'bars': 24, 'halves': [12], 'totals': [('close', 12)]},
    {'bars': 48, 'halves': [], 'totals': [('close', 24)]},
] %}
{% set key = ['exchange', 'market', 'symbol', 'interval_minutes', 'opened_at'] %}
{# What is kept, and how many bars it needs. #}
{% set kept = {
    'close_price_lag_1': 2, 'close_price_lag_5': 6, 'close_price_lag_10': 11, 'close_price_lag_20': 21,
    'close_total_3': 3, 'close_total_6': 6, 'close_total_12': 12, 'close_total_20': 20,
    'close_total_24': 24, 'close_total_48': 48, 'close_moment_3': 3, 'close_moment_6': 6, 'close_moment_12': 12,
    'close_moment_24': 24, 'close_deviation_12': 12, 'close_deviation_20': 20, 'close_deviation_24': 24,
    'range_total_3': 3, 'range_total_6': 6, 'range_total_12': 12, 'volume_total_20': 20, 'traded_total_20': 20,
    'williams_r': 14, 'slow_k': 16, 'slow_d': 18,
} %}

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
        {% if is_incremental() %} and {{ in_lookback(changed) }} {% endif %}

    order by exchange, market, symbol, interval_minutes, opened_at

),

lagged as (

    select
        *,
        {% for column in ['close_price', 'volume', 'traded_value', 'range_pct'] -%}
            {% for bars in range(1, 5) -%}
                {{ earlier(column, bars) }} as {{ column }}_lag_{{ bars }},
            {% endfor -%}
        {% endfor -%}
        {{ earlier('close_price', 5) }} as close_price_lag_5,
        {{ earlier('close_price', 10) }} as close_price_lag_10,
        {{ earlier('close_price', 20) }} as close_price_lag_20,
        {{ extreme_of_lags('greatest', 'high_price', 14) }} as highest_price_14,
        {{ extreme_of_lags('least', 'low_price', 14) }} as lowest_price_14

    from bars

),

totals as (

    select
        *,
        {{ sum_of_lags('close_price', 3) }} as close_total_3,
        0 * close_price_lag_2 + close_price_lag_1 + 2 * close_price as close_moment_3,
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
        ({{ earlier('fast_k', 2) }} + {{ earlier('fast_k', 1) }} + fast_k) / 3 as slow_k,
        (
            {{ earlier('fast_k', 4) }} + 2 * {{ earlier('fast_k', 3) }} + 3 * {{ earlier('fast_k', 2) }}
            + 2 * {{ earlier('fast_k', 1) }} + fast_k
        ) / 9 as slow_d

    from totals

),

{% for layer in layers %}

over_{{ layer.bars }} as (

    select
        *,
        {% for bars in layer.halves -%}
            {{ doubled_deviation('close_deviation_' ~ bars, 'close_total_' ~ bars, bars) }}
                as close_deviation_{{ 2 * bars }},
        {% endfor -%}
        {% for bars in layer.halves | select('in', [3, 6, 12]) -%}
            {{ doubled_moment('close_moment_' ~ bars, 'close_total_' ~ bars, bars) }} as close_moment_{{ 2 * bars }},
        {% endfor -%}
        {% for total, bars in layer.totals -%}
            {{ doubled_sum(total ~ '_total_' ~ bars, bars) }} as {{ total }}_total_{{ 2 * bars }}
            {{- ',' if not loop.last }}
        {% endfor %}
    from over_{{ layer.bars // 2 }}

),

{% endfor %}

final as (

    select
        {{ (key + ['available_at', 'close_price', 'volume', 'bars_in_run']) | join(',\n        ') }},
        {% for column, bars in kept.items() -%}
            {{ if_full(bars, column) }} as {{ column }}{{ ',' if not loop.last }}
        {% endfor %}
    from over_48

)

select * from final

{% if is_incremental() %} where opened_at >= {{ changed }} {% endif %}
