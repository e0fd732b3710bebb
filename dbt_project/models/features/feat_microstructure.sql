{# What the trades of a bar show. The kline's taker volumes stand in where no trades landed. #}

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
        taker_buy_volume,
        bars_in_run

    from {{ ref('int_bars') }}

    where not is_gap

),

trades as (

    select
        exchange,
        market,
        symbol,
        interval_minutes,
        opened_at,
        available_at as trades_available_at,
        trade_count / (interval_minutes * 60) as trade_frequency,
        {{ safe_divide('last_price - first_price', 'volume') }} as price_impact,
        quote_volume as trade_quote_volume,
        buy_volume as trade_buy_volume,
        sell_volume as trade_sell_volume,
        trade_size_mean,
        trade_size_std,
        trade_size_skew,
        roll_spread

    from {{ ref('int_trade_bars') }}

),

flows as (

    select
        *,
        coalesce(trade_buy_volume, taker_buy_volume) as buy_volume,
        coalesce(trade_sell_volume, volume - taker_buy_volume) as sell_volume,
        coalesce(trade_quote_volume, quote_volume) as total_quote_volume,
        case when bars_in_run > 1 then lag(close_price) over by_series end as previous_close_price

    from bars
    left join trades using (exchange, market, symbol, interval_minutes, opened_at)

    window by_series as (partition by exchange, market, symbol, interval_minutes order by opened_at)

),

changes as (

    select
        *,
        buy_volume - sell_volume as net_volume,
        close_price - previous_close_price as price_change,
        {{ safe_divide('abs(close_price / previous_close_price - 1)', 'total_quote_volume') }} as illiquidity

    from flows

),

windowed as (

    select
        *,
        {{ mean_over(20, 'illiquidity') }} as amihud_20,
        {{ mean_over(60, 'illiquidity') }} as amihud_60,
        {{ mean_over(60, 'price_change * net_volume') }}
        - {{ mean_over(60, 'price_change') }} * {{ mean_over(60, 'net_volume') }} as flow_covariance,
        {{ mean_over(60, 'net_volume * net_volume') }} - power({{ mean_over(60, 'net_volume') }}, 2) as flow_variance,
        {{ mean_over(288, 'net_volume') }} * 288 as cumulative_delta_288,
        {{ mean_over(288, 'buy_volume + sell_volume') }} * 288 as traded_volume_288

    from changes

    window by_series as (partition by exchange, market, symbol, interval_minutes order by opened_at),
        last_20 as (by_series rows between 19 preceding and current row),
        last_60 as (by_series rows between 59 preceding and current row),
        last_288 as (by_series rows between 287 preceding and current row)

),

final as (

    select
        exchange,
        market,
        symbol,
        interval_minutes,
        opened_at,
        {{ arrived_with_all_before('greatest(available_at, coalesce(trades_available_at, available_at))') }}
            as available_at,
        buy_volume,
        sell_volume,
        net_volume,
        {{ safe_divide('buy_volume', 'sell_volume') }} as buy_sell_ratio,
        {{ safe_divide('buy_volume', 'buy_volume + sell_volume') }} as taker_buy_ratio,
        trade_size_mean,
        trade_size_std,
        {{ safe_divide('trade_size_std', 'trade_size_mean') }} as trade_size_std_rel,
        trade_size_skew,
        trade_frequency,
        price_impact,
        {{ safe_divide('flow_covariance', 'flow_variance') }} as kyle_lambda,
        roll_spread,
        roll_spread / close_price as roll_spread_rel,
        amihud_20,
        amihud_60,
        cumulative_delta_288,
        {{ safe_divide('cumulative_delta_288', 'traded_volume_288') }} as cumulative_delta_288_rel

    from windowed

)

select * from final
