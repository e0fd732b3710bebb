{# Forced orders summed to bars: those that had arrived when the bar did. #}

{% set changed = changed_from() if is_incremental() %}

with

liquidations as (

    select
        exchange,
        market,
        symbol,
        side,
        liquidated_at,
        coalesce(average_price, price) * coalesce(filled_accumulated_quantity, original_quantity) as notional,
        available_at

    from {{ ref('stg_liquidations') }}

    {% if is_incremental() %} where liquidated_at >= {{ changed }} {% endif %}

),

intervals as (

    {{ rows_of(var('interval_minutes'), 'interval_minutes') }}

),

placed as (

    select
        liquidations.*,
        intervals.interval_minutes,
        {{ bar_opened_at('liquidations.liquidated_at', 'intervals.interval_minutes') }} as opened_at

    from liquidations
    cross join intervals

),

in_time as (

    select
        placed.exchange,
        placed.market,
        placed.symbol,
        placed.interval_minutes,
        placed.opened_at,
        case when placed.side = 'SELL' then placed.notional else 0 end as long_notional,
        case when placed.side = 'BUY' then placed.notional else 0 end as short_notional

    from placed
    inner join {{ ref('int_bars') }} as bars
        on placed.exchange = bars.exchange
        and placed.market = bars.market
        and placed.symbol = bars.symbol
        and placed.interval_minutes = bars.interval_minutes
        and placed.opened_at = bars.opened_at
        and placed.available_at <= bars.available_at

    where not bars.is_gap
        {% if is_incremental() %} and bars.opened_at >= {{ changed }} {% endif %}

),

final as (

    select
        exchange,
        market,
        symbol,
        interval_minutes,
        opened_at,
        count(*) as liquidation_count,
        {{ exact_sum('long_notional') }} as liquidations_long,
        {{ exact_sum('short_notional') }} as liquidations_short

    from in_time

    group by exchange, market, symbol, interval_minutes, opened_at

)

select * from final

{% if is_incremental() %} where opened_at >= {{ changed }} {% endif %}
