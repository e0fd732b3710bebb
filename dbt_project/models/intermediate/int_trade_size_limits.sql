{# From which notional on a trade is large: the 99 % quantile of the UTC day before. #}

{% set changed = 'cast(' ~ changed_from() ~ ' as date)' if is_incremental() %}

with

sizes as (

    select
        exchange,
        market,
        symbol,
        is_aggregate,
        traded_on,
        size_bucket,
        trade_count,
        first_traded_at,
        last_traded_at,
        available_at

    from {{ ref('int_trade_sizes') }}

    {% if is_incremental() %} where traded_on >= cast({{ add_minutes(changed_from(), -1440) }} as date) {% endif %}

),

ranked as (

    select
        *,
        sum(trade_count) over (
            partition by exchange, market, symbol, is_aggregate, traded_on
            order by size_bucket
            rows between unbounded preceding and current row
        ) as trades_up_to_bucket,
        sum(trade_count) over (
            partition by exchange, market, symbol, is_aggregate, traded_on
        ) as trades_of_day

    from sizes

),

days as (

    select
        exchange,
        market,
        symbol,
        is_aggregate,
        traded_on,
        min(
            case
                when 100 * trades_up_to_bucket >= {{ var('large_trade_percentile') }} * trades_of_day then size_bucket
            end
        ) as limit_bucket,
        min(first_traded_at) as first_traded_at,
        max(last_traded_at) as last_traded_at,
        max(available_at) as available_at

    from ranked

    group by exchange, market, symbol, is_aggregate, traded_on

),

dated as (

    select
        *,
        {{ bar_opened_at('first_traded_at', 1440) }} as day_at,
        cast({{ add_minutes(bar_opened_at('first_traded_at', 1440), 1440) }} as date) as traded_on_next

    from days

),

final as (

    select
        exchange,
        market,
        symbol,
        is_aggregate,
        traded_on_next as traded_on,
        exp((limit_bucket + 1) / {{ var('large_trade_buckets') }}) as large_notional,
        available_at

    from dated

    where first_traded_at < {{ add_minutes('day_at', 60) }} and last_traded_at >= {{ add_minutes('day_at', 1380) }}

)

select * from final

{% if is_incremental() %} where traded_on >= {{ changed }} {% endif %}
