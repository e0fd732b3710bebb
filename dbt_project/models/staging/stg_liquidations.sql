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

known as (

    select
        *,
        case
            when {{ was_heard() }} then greatest(liquidated_at, received_at)
            else liquidated_at
        end as available_at

    from liquidations

),

first_known as (

    select *

    from known

    qualify row_number() over (
        partition by
            exchange, market, symbol, side, liquidated_at,
            {{ groupable('price') }},
            {{ groupable('original_quantity') }},
            {{ groupable('filled_accumulated_quantity') }}
        order by available_at, received_at desc, source
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
        available_at,
        source,
        received_at

    from first_known

)

select * from final
