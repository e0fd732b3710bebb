{# The edges of the gaps of recorded books: when one began and when it was over. #}

with

edges as (

    select
        exchange,
        market,
        symbol,
        {{ utc('coalesce(gap_until, gap_from)') }} as gap_at,
        {{ utc('received_at') }} as received_at

    from {{ source('raw', 'book_gaps') }}

),

final as (

    select
        exchange,
        market,
        symbol,
        gap_at,
        min(greatest(gap_at, received_at)) as available_at

    from edges

    group by exchange, market, symbol, gap_at

)

select * from final
