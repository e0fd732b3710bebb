{# Trades summed to minutes, raw and aggregate apart. Price changes are between consecutive trades of a minute. #}

{% set changed = changed_from() if is_incremental() %}

with

limits as (

    select
        exchange,
        market,
        symbol,
        is_aggregate,
        traded_on,
        large_notional,
        available_at as large_notional_available_at

    from {{ ref('int_trade_size_limits') }}

    {% if is_incremental() %} where traded_on >= cast({{ changed }} as date) {% endif %}

),

trades as (

    select
        exchange,
        market,
        symbol,
        is_aggregate,
        trade_id,
        {{ bar_opened_at('traded_at', 1) }} as minute_at,
        greatest(available_at, coalesce(large_notional_available_at, available_at)) as available_at,
        price,
        quantity,
        quote_quantity,
        is_buyer_maker,
        large_notional

    from {{ ref('stg_trades') }}
    left join limits using (exchange, market, symbol, is_aggregate, traded_on)

    {% if is_incremental() %} where traded_on >= cast({{ changed }} as date) {% endif %}

),

minutes as (

    select
        exchange,
        market,
        symbol,
        is_aggregate,
        minute_at,
        max(available_at) as available_at,
        count(*) as trade_count,
        min(quantity) as smallest_quantity,
        max(quantity) as largest_quantity,
        {{ exact_sum('quantity') }} as volume,
        {{ exact_sum('quote_quantity') }} as quote_volume,
        {{ exact_sum_where('quantity', 'not is_buyer_maker') }} as buy_volume,
        {{ exact_sum_where('quantity', 'is_buyer_maker') }} as sell_volume,
        {{ exact_power_sum('quantity', 2) }} as quantity_square_sum,
        {{ exact_power_sum('quantity', 3) }} as quantity_cube_sum,
        max(large_notional) as large_notional,
        count(case when quote_quantity >= large_notional then 1 end) as large_trade_count,
        {{ exact_sum_where('quote_quantity', 'quote_quantity >= large_notional') }} as large_quote_volume,
        {{ ordered_values('price', 'trade_id') }} as prices

    from trades

    group by exchange, market, symbol, is_aggregate, minute_at

),

final as (

    select
        exchange,
        market,
        symbol,
        is_aggregate,
        minute_at,
        available_at,
        trade_count,
        {{ level('prices', 0) }} as first_price,
        {{ level('prices', 'trade_count - 1') }} as last_price,
        smallest_quantity,
        largest_quantity,
        volume,
        quote_volume,
        buy_volume,
        sell_volume,
        quantity_square_sum,
        quantity_cube_sum,
        greatest(trade_count - 2, 0) as pair_count,
        {# The changes of a minute add up to the difference of its ends. #}
        case when trade_count > 2 then {{ level('prices', 'trade_count - 1') }} - {{ level('prices', 1) }} end
            as change_sum,
        case when trade_count > 2 then {{ level('prices', 'trade_count - 2') }} - {{ level('prices', 0) }} end
            as previous_change_sum,
        {{ change_product_sum('prices') }} as change_product_sum,
        case when large_notional is not null then large_trade_count end as large_trade_count,
        case when large_notional is not null then large_quote_volume end as large_quote_volume

    from minutes

)

select * from final

{% if is_incremental() %} where minute_at >= {{ changed }} {% endif %}
