{# Headlines, typed and deduplicated by the provider's id: of two, the one that was known first. #}

with

news as (

    select
        provider,
        news_id,
        {{ utc('published_time') }} as published_at,
        {{ utc('arrival_time') }} as arrived_at,
        headline,
        url,
        source,
        {{ utc('received_at') }} as received_at

    from {{ source('raw', 'news') }}

),

timed as (

    select
        *,
        greatest(published_at, coalesce(arrived_at, received_at)) as available_at

    from news

),

final as (

    select
        provider,
        news_id,
        published_at,
        headline,
        url,
        available_at,
        source,
        received_at

    from timed

    qualify row_number() over (
        partition by provider, news_id
        order by available_at, received_at desc, source
    ) = 1

)

select * from final
