{# Log returns of bars and the variance that each bar's range tells of. #}

{% set changed = changed_from() if is_incremental() %}

with

bars as (

    select
        exchange,
        market,
        symbol,
        interval_minutes,
        opened_at,
        available_at,
        close_price,
        bars_in_run,
        ln(high_price / low_price) as log_range,
        ln(close_price / open_price) as log_body

    from {{ ref('int_bars') }}

    where not is_gap
        {% if is_incremental() %} and {{ in_lookback(changed) }} {% endif %}

    order by exchange, market, symbol, interval_minutes, opened_at

),

final as (

    select
        exchange,
        market,
        symbol,
        interval_minutes,
        opened_at,
        available_at,
        close_price,
        bars_in_run,
        ln(close_price / {{ lag_in_run('close_price', 1) }}) as log_return,
        {# Parkinson 1980; Garman and Klass 1980. #}
        log_range * log_range / (4 * ln(2)) as parkinson_variance,
        5e-1 * log_range * log_range - (2 * ln(2) - 1) * log_body * log_body as garman_klass_variance

    from bars

)

select * from final

{% if is_incremental() %} where opened_at >= {{ changed }} {% endif %}
