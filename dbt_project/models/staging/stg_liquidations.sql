{# Forced orders, typed and deduplicated by symbol, side, time, price and quantities. #}

with

liquidations as (

    select
        exchange,
        market,
        symbol,
        side,
        {{ utc('trade_time') }} as liquidated_at,
        price,
        average_price,
        original_quantity,
        filled_accumulated_quantity,
        order_status,
        source,
        {{ utc('received_at') }} as received_at

    from {{ source('raw', 'liquidations') }}

),

latest as (

    select *

    from liquidations

    qualify row_number() over (
        partition by
            exchange, market, symbol, side, liquidated_at, price, original_quantity, filled_accumulated_quantity
        order by received_at desc, source
    ) = 1

),

final as (

    select
        exchange,
        market,
        symbol,
        side,
        liquidated_at,
        price,
        average_price,
        original_quantity,
        filled_accumulated_quantity,
        order_status,
        case
            when source like 'websocket%' then greatest(liquidated_at, received_at)
            else liquidated_at
        end as available_at,
        source,
        received_at

    from latest

)

select * from final
