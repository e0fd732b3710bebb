{# Candlesticks, typed and deduplicated: the closed and latest received one wins. #}

{% set minutes -%}
    cast(left(interval_name, length(interval_name) - 1) as integer)
    * case right(interval_name, 1) when 'm' then 1 when 'h' then 60 when 'd' then 1440 end
{%- endset %}
{% set landed -%}
    select
        *,
        case when {{ was_heard() }} then greatest(closed_at, received_at) else closed_at end as known_at

    from (

        select
            *,
            {{ add_minutes('opened_at', minutes) }} as closed_at

        from (

            select
                exchange,
                market,
                symbol,
                {{ adapter.quote('interval') }} as interval_name,
                {{ utc('open_time') }} as opened_at,
                open as open_price,
                high as high_price,
                low as low_price,
                close as close_price,
                volume,
                quote_volume,
                count as trade_count,
                taker_buy_volume,
                taker_buy_quote_volume,
                is_closed,
                source,
                {{ utc('received_at') }} as received_at

            from {{ source('raw', 'klines') }}

        ) as klines

    ) as timed
{%- endset %}

with

{# A kline that arrives again unchanged was known from the first time on. #}
latest as (

    {{ latest_of(
        landed,
        keys=['exchange', 'market', 'symbol', 'interval_name'],
        day='opened_at',
        order='is_closed desc, received_at desc, source',
        first_known=[
            'is_closed', groupable('open_price'), groupable('high_price'), groupable('low_price'),
            groupable('close_price'), groupable('volume'),
        ],
    ) }}

),

final as (

    select
        exchange,
        market,
        symbol,
        {{ minutes }} as interval_minutes,
        opened_at,
        closed_at,
        first_known_at as available_at,
        open_price,
        high_price,
        low_price,
        close_price,
        volume,
        quote_volume,
        trade_count,
        taker_buy_volume,
        taker_buy_quote_volume,
        is_closed,
        source,
        received_at

    from latest

)

select * from final
