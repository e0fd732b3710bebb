{# Parameters of GARCH(1,1) models, deduplicated: the latest received of one fit wins. #}

with

parameters as (

    select
        exchange,
        market,
        symbol,
        interval_minutes,
        omega,
        alpha,
        beta,
        {{ utc('fitted_until') }} as fitted_until,
        {{ utc('known_at') }} as available_at,
        source,
        {{ utc('received_at') }} as received_at

    from {{ source('raw', 'garch_parameters') }}

),

final as (

    select *

    from parameters

    qualify row_number() over (
        partition by exchange, market, symbol, interval_minutes, fitted_until, available_at
        order by received_at desc, source
    ) = 1

)

select * from final
