{# Who took how much in a bar and how the price moved, from trades, or from the kline where none landed. #}

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
        volume,
        quote_volume,
        trade_count as kline_trade_count,
        taker_buy_volume,
        bars_in_run

    from {{ ref('int_bars') }}

    where not is_gap
        {% if is_incremental() %} and {{ in_lookback(changed) }} {% endif %}

),

trades as (

    select
        exchange,
        market,
        symbol,
        interval_minutes,
        opened_at,
        available_at as trades_available_at,
        trade_count,
        quote_volume as trade_quote_volume,
        buy_volume as trade_buy_volume,
        sell_volume as trade_sell_volume

    from {{ ref('int_trade_bars') }}

    {% if is_incremental() %} where {{ in_lookback(changed) }} {% endif %}

),

{% if is_incremental() %}

earlier as (

    select
        exchange,
        market,
        symbol,
        interval_minutes,
        max(available_at) as arrived_at

    from {{ this }}

    where opened_at < {{ changed }} and opened_at >= {{ last_bar(changed) }}

    group by exchange, market, symbol, interval_minutes

),

{% endif %}

flows as (

    select
        *,
        {{ series_key() }} as series_key,
        coalesce(trade_buy_volume, taker_buy_volume) as buy_volume,
        coalesce(trade_sell_volume, volume - taker_buy_volume) as sell_volume,
        coalesce(trade_quote_volume, quote_volume) as total_quote_volume,
        cast(coalesce(trade_count, kline_trade_count) as {{ type_float64() }}) as total_trade_count

    from bars
    left join trades using (exchange, market, symbol, interval_minutes, opened_at)

    order by series_key, opened_at

),

changes as (

    select
        *,
        buy_volume + sell_volume as total_volume,
        buy_volume - sell_volume as net_volume,
        {{ safe_divide('buy_volume - sell_volume', 'buy_volume + sell_volume') }} as trade_imbalance,
        {{ latest_so_far('greatest(available_at, coalesce(trades_available_at, available_at))') }}  -- noqa: PRS
            as seen_at,
        {{ lag_in_run('close_price', 1) }} as previous_close_price

    from flows

),

lagged as (

    select
        *,
        {{ lag_in_run('trade_imbalance', 1) }} as previous_trade_imbalance

    from changes

),

final as (

    select
        exchange,
        market,
        symbol,
        interval_minutes,
        opened_at,
        greatest(seen_at, {{ 'coalesce(arrived_at, available_at)' if is_incremental() else 'available_at' }})
            as available_at,
        bars_in_run,
        close_price,
        buy_volume,
        sell_volume,
        total_volume,
        total_quote_volume,
        total_trade_count,
        net_volume,
        trade_imbalance,
        previous_trade_imbalance,
        close_price - previous_close_price as price_change,
        {{ safe_divide('abs(close_price / previous_close_price - 1)', 'total_quote_volume') }} as illiquidity

    from lagged
    {% if is_incremental() %} left join earlier using (exchange, market, symbol, interval_minutes) {% endif %}

)

select * from final

{% if is_incremental() %} where opened_at >= {{ changed }} {% endif %}
