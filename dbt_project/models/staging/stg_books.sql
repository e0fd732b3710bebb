{# Order-book snapshots, typed and deduplicated by their last update id. #}

{% set landed -%}
    select
        exchange,
        market,
        symbol,
        last_update_id,
        {{ utc('transact_time') }} as snapshot_at,
        {{ utc_day('transact_time') }} as snapshot_on,
        bid_prices,
        bid_quantities,
        ask_prices,
        ask_quantities,
        source,
        {{ utc('received_at') }} as received_at

    from {{ source('raw', 'books') }}
{%- endset %}

with

latest as (

    {{ latest_of(
        landed,
        keys=['exchange', 'market', 'symbol'],
        day='snapshot_on',
        id='last_update_id',
        order=heard_first() ~ ', received_at desc, source',
    ) }}

),

final as (

    select
        exchange,
        market,
        symbol,
        last_update_id,
        snapshot_at,
        snapshot_on,
        bid_prices,
        bid_quantities,
        ask_prices,
        ask_quantities,
        case when {{ was_heard() }} then greatest(snapshot_at, received_at) else snapshot_at end as available_at,
        source,
        received_at

    from latest

)

select * from final
