{# Candlesticks, typed and deduplicated: the closed and latest received one wins. #}

with

klines as (

    select
        exchange,
        market,
        symbol,
        {{ adapter.quote('interval') }} as interval_name,
        {{ utc('open_time') }} as opened_at,
        open as open_price,
        high as high_price,
        low as low_price,
        close as close_price,
        volume,
        quote_volume,
        count as trade_count,
        taker_buy_volume,
        taker_buy_quote_volume,
        is_closed,
        source,
        {{ utc('received_at') }} as received_at

    from {{ source('raw', 'klines') }}

),

measured as (

    select
        *,
        cast(left(interval_name, length(interval_name) - 1) as integer)
        * case right(interval_name, 1) when 'm' then 1 when 'h' then 60 when 'd' then 1440 end as interval_minutes

    from klines

),

latest as (

    select *

    from measured

    qualify row_number() over (
        partition by exchange, market, symbol, interval_minutes, opened_at
        order by is_closed desc, received_at desc, source
    ) = 1

),

timed as (

    select
        *,
        {{ add_minutes('opened_at', 'interval_minutes') }} as closed_at

    from latest

),

final as (

    select
        exchange,
        market,
        symbol,
        interval_minutes,
        opened_at,
        closed_at,
        case when source like 'websocket%' then greatest(closed_at, received_at) else closed_at end as available_at,
        open_price,
        high_price,
        low_price,
        close_price,
        volume,
        quote_volume,
        trade_count,
        taker_buy_volume,
        taker_buy_quote_volume,
        is_closed,
        source,
        received_at

    from timed

)

select * from final
