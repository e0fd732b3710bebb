{# Open interest, typed and deduplicated by reading time. #}

with

open_interest as (

    select
        exchange,
        market,
        symbol,
        {{ utc('create_time') }} as measured_at,
        sum_open_interest as open_interest,
        sum_open_interest_value as open_interest_value,
        source,
        {{ utc('received_at') }} as received_at

    from {{ source('raw', 'open_interest') }}

),

known as (

    select
        *,
        case when {{ was_heard() }} then greatest(measured_at, received_at) else measured_at end as available_at

    from open_interest

),

first_known as (

    select *

    from known

    qualify row_number() over (
        partition by exchange, market, symbol, measured_at
        order by {{ heard_first() }}, available_at, received_at desc, source
    ) = 1

),

final as (

    select
        exchange,
        market,
        symbol,
        measured_at,
        open_interest,
        open_interest_value,
        available_at,
        source,
        received_at

    from first_known

)

select * from final
