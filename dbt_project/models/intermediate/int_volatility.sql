{# The standard deviation of the last 20 returns of a bar. #}

{{ config(materialized='view') }}

with

bars as (

    select
        exchange,
        market,
        symbol,
        interval_minutes,
        opened_at,
        bars_in_run,
        close_price / lag(close_price) over by_series - 1 as return_1

    from {{ ref('int_bars') }}

    where not is_gap

    window by_series as (partition by exchange, market, symbol, interval_minutes order by opened_at)

),

lagged as (

    select
        *,
        {% for bars in range(1, 20) -%}
            lag(return_1, {{ bars }}) over by_series as return_1_lag_{{ bars }}{{ ',' if not loop.last }}
        {% endfor %}
    from bars

    window by_series as (partition by exchange, market, symbol, interval_minutes order by opened_at)

),

totals as (

    select
        *,
        {{ sum_of_lags('return_1', 20) }} as return_total_20

    from lagged

),

final as (

    select
        exchange,
        market,
        symbol,
        interval_minutes,
        opened_at,
        {{ if_full(21, 'sqrt((' ~ deviation_of_lags('return_1', 'return_total_20', 20) ~ ') / 19)') }} as volatility_20

    from totals

)

select * from final
