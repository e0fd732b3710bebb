{# Funding rates, typed and deduplicated by funding time. #}

with

funding as (

    select
        exchange,
        market,
        symbol,
        {{ utc('funding_time') }} as funded_at,
        funding_rate,
        mark_price,
        source,
        {{ utc('received_at') }} as received_at

    from {{ source('raw', 'funding') }}

),

known as (

    select
        *,
        case when {{ was_heard() }} then greatest(funded_at, received_at) else funded_at end as available_at

    from funding

),

first_known as (

    select *

    from known

    qualify row_number() over (
        partition by exchange, market, symbol, funded_at
        order by {{ heard_first() }}, available_at, received_at desc, source
    ) = 1

),

final as (

    select
        exchange,
        market,
        symbol,
        funded_at,
        funding_rate,
        mark_price,
        available_at,
        source,
        received_at

    from first_known

)

select * from final
