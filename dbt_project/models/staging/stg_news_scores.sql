{# Sentiment of headlines, typed and deduplicated by headline and scorer: of two, the one that was known first. #}

with

scores as (

    select
        provider,
        news_id,
        scorer,
        {{ utc('published_time') }} as published_at,
        {{ utc('arrival_time') }} as arrived_at,
        score,
        source,
        {{ utc('received_at') }} as received_at

    from {{ source('raw', 'news_scores') }}

),

timed as (

    select
        *,
        greatest(published_at, coalesce(arrived_at, received_at)) as available_at

    from scores

),

final as (

    select
        provider,
        news_id,
        scorer,
        published_at,
        score,
        available_at,
        source,
        received_at

    from timed

    qualify row_number() over (
        partition by provider, news_id, scorer
        order by available_at, received_at desc, source
    ) = 1

)

select * from final
