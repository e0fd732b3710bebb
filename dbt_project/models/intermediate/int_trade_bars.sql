{# Trades summed to bars, from whichever kind of trade, raw or aggregate, shows the larger volume in the bar. #}

{% set changed = changed_from() if is_incremental() %}

with

minutes as (

    select *

    from {{ ref('int_trade_minutes') }}

    {% if is_incremental() %} where minute_at >= {{ changed }} {% endif %}

),

intervals as (

    {{ rows_of(var('interval_minutes'), 'interval_minutes') }}

),

placed as (

    select
        minutes.*,
        intervals.interval_minutes,
        {{ bar_opened_at('minutes.minute_at', 'intervals.interval_minutes') }} as opened_at

    from minutes
    cross join intervals

),

summed as (

    select
        exchange,
        market,
        symbol,
        interval_minutes,
        opened_at,
        is_aggregate,
        max(available_at) as available_at,
        cast(sum(trade_count) as bigint) as trade_count,
        cast(sum(pair_count) as bigint) as pair_count,
        min_by(first_price, minute_at) as first_price,
        max_by(last_price, minute_at) as last_price,
        min(smallest_quantity) as smallest_quantity,
        max(largest_quantity) as largest_quantity,
        case when count(large_trade_count) = count(*) then cast(sum(large_trade_count) as bigint) end
            as large_trade_count,
        {% for column in ['volume', 'quote_volume', 'buy_volume', 'sell_volume', 'large_quote_volume'] -%}
            {{ exact_sum(column) }} as {{ column }},
        {% endfor -%}
        {% for column in [
            'quantity_square_sum', 'quantity_cube_sum', 'change_sum', 'previous_change_sum', 'change_product_sum',
        ] -%}
            {{ ordered_sum(column, 'minute_at') }} as {{ column }}{{ ',' if not loop.last }}
        {% endfor %}
    from placed

    group by exchange, market, symbol, interval_minutes, opened_at, is_aggregate

),

larger_kind as (

    select *

    from summed

    qualify row_number() over (
        partition by exchange, market, symbol, interval_minutes, opened_at
        order by volume desc, is_aggregate
    ) = 1

),

moments as (

    select
        *,
        volume / trade_count as trade_size_mean,
        case
            when smallest_quantity < largest_quantity
                then quantity_square_sum / trade_count - power(volume / trade_count, 2)
            else 0
        end as trade_size_variance,
        quantity_cube_sum / trade_count
        - 3 * (volume / trade_count) * (quantity_square_sum / trade_count)
        + 2 * power(volume / trade_count, 3) as trade_size_third_moment,
        {{ safe_divide('change_product_sum', 'pair_count') }}
        - {{ safe_divide('change_sum', 'pair_count') }} * {{ safe_divide('previous_change_sum', 'pair_count') }}
            as change_covariance

    from larger_kind

),

final as (

    select
        exchange,
        market,
        symbol,
        interval_minutes,
        opened_at,
        {{ add_minutes('opened_at', 'interval_minutes') }} as closed_at,
        greatest(available_at, {{ add_minutes('opened_at', 'interval_minutes') }}) as available_at,
        is_aggregate,
        trade_count,
        first_price,
        last_price,
        volume,
        quote_volume,
        buy_volume,
        sell_volume,
        large_trade_count,
        large_quote_volume,
        trade_size_mean,
        sqrt(greatest(trade_size_variance, 0)) as trade_size_std,
        case
            when trade_count > 2 and trade_size_variance > 0
                then sqrt(trade_count * (trade_count - 1)) / (trade_count - 2)
                    * trade_size_third_moment / power(trade_size_variance, 15e-1)
        end as trade_size_skew,
        case when change_covariance is not null then 2 * sqrt(greatest(-change_covariance, 0)) end as roll_spread

    from moments

)

select * from final

{% if is_incremental() %} where opened_at >= {{ changed }} {% endif %}
