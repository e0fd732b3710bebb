{# Raw and aggregate trades, typed and deduplicated by their id. #}

{% set landed -%}
    select
        exchange,
        market,
        symbol,
        is_aggregate,
        trade_id,
        {{ utc('transact_time') }} as traded_at,
        {{ utc_day('transact_time') }} as traded_on,
        price,
        quantity,
        coalesce(quote_quantity, price * quantity) as quote_quantity,
        is_buyer_maker,
        source,
        {{ utc('received_at') }} as received_at

    from {{ source('raw', 'trades') }}
{%- endset %}

with

latest as (

    {{ latest_of(
        landed,
        keys=['exchange', 'market', 'symbol', 'is_aggregate'],
        day='traded_on',
        id='trade_id',
        order=heard_first() ~ ', received_at desc, source',
    ) }}

),

final as (

    select
        exchange,
        market,
        symbol,
        is_aggregate,
        trade_id,
        traded_at,
        traded_on,
        price,
        quantity,
        quote_quantity,
        is_buyer_maker,
        case when {{ was_heard() }} then greatest(traded_at, received_at) else traded_at end as available_at,
        source,
        received_at

    from latest

)

select * from final
