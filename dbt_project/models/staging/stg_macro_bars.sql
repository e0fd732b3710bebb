{# Bars of indices and commodities, typed and deduplicated by close time: of two, the one that was known first. #}

with

macro_bars as (

    select
        series,
        {{ utc('open_time') }} as opened_at,
        {{ utc('close_time') }} as closed_at,
        open as open_value,
        high as high_value,
        low as low_value,
        close as close_value,
        source,
        {{ utc('received_at') }} as received_at

    from {{ source('raw', 'macro_bars') }}

),

timed as (

    select
        *,
        case when {{ was_heard() }} then greatest(closed_at, received_at) else closed_at end as available_at

    from macro_bars

),

final as (

    select
        series,
        opened_at,
        closed_at,
        open_value,
        high_value,
        low_value,
        close_value,
        available_at,
        source,
        received_at

    from timed

    qualify row_number() over (
        partition by series, closed_at
        order by available_at, received_at desc, source
    ) = 1

)

select * from final
