{# What the scoring loop said of each bar, once. #}

with

signals as (

    select
        model_name,
        model_version,
        stage,
        exchange,
        market,
        symbol,
        interval_minutes,
        {{ utc('opened_at') }} as opened_at,
        {{ utc('closed_at') }} as closed_at,
        {{ utc('available_at') }} as available_at,
        probability,
        threshold,
        signal,
        reason,
        answered_by,
        features_sha256,
        is_late,
        {{ utc('heard_at') }} as heard_at,
        {{ utc('served_at') }} as served_at,
        probabilities

    from {{ source('raw', 'signals') }}

),

final as (

    select *

    from signals

    qualify row_number() over (
        partition by model_name, model_version, exchange, market, symbol, interval_minutes, opened_at
        order by served_at
    ) = 1

)

select * from final
