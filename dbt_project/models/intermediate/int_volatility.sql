{# The standard deviation of the last 20 returns of a bar. #}

{% set changed = changed_from() if is_incremental() %}

with

bars as (

    select
        exchange,
        market,
        symbol,
        interval_minutes,
        opened_at,
        close_price,
        bars_in_run

    from {{ ref('int_bars') }}

    where not is_gap
        {% if is_incremental() %} and {{ in_lookback(changed) }} {% endif %}

    order by exchange, market, symbol, interval_minutes, opened_at

),

returns as (

    select
        *,
        close_price / {{ earlier('close_price') }} - 1 as return_1

    from bars

),

lagged as (

    select
        *,
        {% for bars in range(1, 20) -%}
            {{ earlier('return_1', bars) }} as return_1_lag_{{ bars }}{{ ',' if not loop.last }}
        {% endfor %}
    from returns

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

{% if is_incremental() %} where opened_at >= {{ changed }} {% endif %}
