{# Mark and index prices, typed and deduplicated by event time: of two, the one that was heard or known first. #}

with

mark_prices as (

    select
        exchange,
        market,
        symbol,
        {{ utc('event_time') }} as marked_at,
        mark_price,
        index_price,
        estimated_settle_price,
        funding_rate as next_funding_rate,
        {{ utc('next_funding_time') }} as next_funded_at,
        source,
        {{ utc('received_at') }} as received_at

    from {{ source('raw', 'mark_prices') }}

),

timed as (

    select
        *,
        case when {{ was_heard() }} then greatest(marked_at, received_at) else marked_at end as available_at

    from mark_prices

),

final as (

    select
        exchange,
        market,
        symbol,
        marked_at,
        mark_price,
        index_price,
        estimated_settle_price,
        next_funding_rate,
        next_funded_at,
        available_at,
        source,
        received_at

    from timed

    qualify row_number() over (
        partition by exchange, market, symbol, marked_at
        order by {{ heard_first() }}, available_at, received_at desc, source
    ) = 1

)

select * from final
