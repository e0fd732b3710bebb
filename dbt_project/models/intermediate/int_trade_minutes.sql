{# Trades summed to minutes, raw and aggregate apart. Price changes are between consecutive trades of a minute. #}

with

trades as (

    select
        exchange,
        market,
        symbol,
        is_aggregate,
        trade_id,
        {{ bar_opened_at('traded_at', 1) }} as minute_at,
        available_at,
        price,
        quantity,
        quote_quantity,
        is_buyer_maker

    from {{ ref('stg_trades') }}

),

changes as (

    select
        *,
        price - lag(price) over by_minute as price_change

    from trades

    window by_minute as (partition by exchange, market, symbol, is_aggregate, minute_at order by trade_id)

),

pairs as (

    select
        *,
        lag(price_change) over by_minute as previous_price_change

    from changes

    window by_minute as (partition by exchange, market, symbol, is_aggregate, minute_at order by trade_id)

),

final as (

    select
        exchange,
        market,
        symbol,
        is_aggregate,
        minute_at,
        max(available_at) as available_at,
        count(*) as trade_count,
        min_by(price, trade_id) as first_price,
        max_by(price, trade_id) as last_price,
        min(quantity) as smallest_quantity,
        max(quantity) as largest_quantity,
        {{ exact_sum('quantity') }} as volume,
        {{ exact_sum('quote_quantity') }} as quote_volume,
        {{ exact_sum('case when is_buyer_maker then 0 else quantity end') }} as buy_volume,
        {{ exact_sum('case when is_buyer_maker then quantity else 0 end') }} as sell_volume,
        {{ ordered_sum('quantity * quantity', 'trade_id') }} as quantity_square_sum,
        {{ ordered_sum('quantity * quantity * quantity', 'trade_id') }} as quantity_cube_sum,
        count(previous_price_change) as pair_count,
        {{ ordered_sum('case when previous_price_change is not null then price_change end', 'trade_id') }}
            as change_sum,
        {{ ordered_sum('previous_price_change', 'trade_id') }} as previous_change_sum,
        {{ ordered_sum('price_change * previous_price_change', 'trade_id') }} as change_product_sum

    from pairs

    group by exchange, market, symbol, is_aggregate, minute_at

)

select * from final
