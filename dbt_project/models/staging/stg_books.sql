{# Order-book snapshots, typed and deduplicated by their last update id. #}

with

books as (

    select
        exchange,
        market,
        symbol,
        last_update_id,
        {{ utc('coalesce(transact_time, event_time, received_at)') }} as snapshot_at,
        bid_prices,
        bid_quantities,
        ask_prices,
        ask_quantities,
        source,
        {{ utc('received_at') }} as received_at

    from {{ source('raw', 'books') }}

),

latest as (

    select *

    from books

    qualify row_number() over (
        partition by exchange, market, symbol, last_update_id
        order by received_at desc, source
    ) = 1

),

final as (

    select
        exchange,
        market,
        symbol,
        last_update_id,
        snapshot_at,
        bid_prices,
        bid_quantities,
        ask_prices,
        ask_quantities,
        case when source like 'websocket%' then greatest(snapshot_at, received_at) else snapshot_at end as available_at,
        source,
        received_at

    from latest

)

select * from final
