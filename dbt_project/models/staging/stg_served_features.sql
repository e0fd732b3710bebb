{# The features that the scoring loop computed of each bar, once. #}

with

served as (

    select
        dataset,
        exchange,
        market,
        symbol,
        interval_minutes,
        {{ utc('opened_at') }} as opened_at,
        {{ utc('closed_at') }} as closed_at,
        {{ utc('available_at') }} as available_at,
        features,
        {{ utc('served_at') }} as served_at

    from {{ source('raw', 'served_features') }}

),

final as (

    select *

    from served

    qualify row_number() over (
        partition by dataset, exchange, market, symbol, interval_minutes, opened_at
        order by served_at
    ) = 1

)

select * from final
