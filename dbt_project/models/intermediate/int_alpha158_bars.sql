{# What Alpha158 knows of each bar and its change, for the intervals that have these features. #}

{% set changed = changed_from() if is_incremental() %}

with

bars as (

    select
        {{ series_key() }} as series_key,
        exchange,
        market,
        symbol,
        interval_minutes,
        opened_at,
        available_at,
        open_price,
        high_price,
        low_price,
        close_price,
        {{ safe_divide('quote_volume', 'volume') }} as vwap_price,
        volume,
        ln(volume + 1) as log_volume,
        bars_in_run,
        {{ add_minutes('opened_at', 'interval_minutes * (1 - bars_in_run)') }} as run_opened_at

    from {{ ref('int_bars') }}

    where not is_gap and interval_minutes in ({{ alpha158_intervals() | join(', ') }})
        {% if is_incremental() %} and {{ in_lookback(changed) }} {% endif %}

    order by exchange, market, symbol, interval_minutes, opened_at

),

with_previous as (

    select
        *,
        {{ lag_in_run('close_price', 1) }} as previous_close_price,
        {{ lag_in_run('volume', 1) }} as previous_volume

    from bars

),

final as (

    select
        *,
        close_price - previous_close_price as close_change,
        volume - previous_volume as volume_change,
        abs(close_price / previous_close_price - 1) * volume as weighted_return,
        case when previous_volume > 0 then close_price / previous_close_price end as close_ratio,
        ln({{ safe_divide('volume', 'previous_volume') }} + 1) as log_volume_ratio

    from with_previous

)

select * from final

{% if is_incremental() %} where opened_at >= {{ changed }} {% endif %}
