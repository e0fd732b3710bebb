{# Raw and aggregate trades, typed and deduplicated by their id. #}

with

trades as (

    select
        exchange,
        market,
        symbol,
        is_aggregate,
        trade_id,
        {{ utc('transact_time') }} as traded_at,
        price,
        quantity,
        coalesce(quote_quantity, price * quantity) as quote_quantity,
        is_buyer_maker,
        source,
        {{ utc('received_at') }} as received_at

    from {{ source('raw', 'trades') }}

),

latest as (

    select *

    from trades

    qualify row_number() over (
        partition by exchange, market, symbol, is_aggregate, trade_id
        order by received_at desc, source
    ) = 1

),

final as (

    select
        exchange,
        market,
        symbol,
        is_aggregate,
        trade_id,
        traded_at,
        price,
        quantity,
        quote_quantity,
        is_buyer_maker,
        case when source like 'websocket%' then greatest(traded_at, received_at) else traded_at end as available_at,
        source,
        received_at

    from latest

)

select * from final
