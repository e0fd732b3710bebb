{# How much of each series is there: its span, its gaps and the longest one. #}

with

bars as (

    select
        exchange,
        market,
        symbol,
        interval_minutes,
        opened_at,
        closed_at,
        is_gap

    from {{ ref('int_bars') }}

),

reported as (

    select
        *,
        lag(closed_at) over (
            partition by exchange, market, symbol, interval_minutes order by opened_at
        ) as previous_closed_at

    from bars

    where not is_gap

),

longest as (

    select
        exchange,
        market,
        symbol,
        interval_minutes,
        count(*) as reported_bars,
        coalesce(max({{ minutes_between('previous_closed_at', 'opened_at') }}), 0) as longest_gap_minutes

    from reported

    group by exchange, market, symbol, interval_minutes

),

spans as (

    select
        exchange,
        market,
        symbol,
        interval_minutes,
        min(opened_at) as first_opened_at,
        max(closed_at) as last_closed_at,
        count(*) as bars_on_grid

    from bars

    group by exchange, market, symbol, interval_minutes

),

final as (

    select
        spans.exchange,
        spans.market,
        spans.symbol,
        spans.interval_minutes,
        spans.first_opened_at,
        spans.last_closed_at,
        spans.bars_on_grid,
        spans.bars_on_grid - longest.reported_bars as gap_bars,
        longest.longest_gap_minutes,
        round(1e2 * longest.reported_bars / spans.bars_on_grid, 3) as coverage_pct

    from spans
    inner join longest
        on spans.exchange = longest.exchange
        and spans.market = longest.market
        and spans.symbol = longest.symbol
        and spans.interval_minutes = longest.interval_minutes

)

select * from final
order by exchange, market, symbol, interval_minutes
