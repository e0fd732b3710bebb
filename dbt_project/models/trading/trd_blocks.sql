{# Profit of each strategy by the hour, one portfolio with equal weights of all series. #}

with

positions as (

    select
        strategy,
        exchange,
        market,
        symbol,
        interval_minutes,
        {{ bar_opened_at('opened_at', 60) }} as block_at,
        gross_bps,
        cost_bps,
        funding_bps,
        net_bps

    from {{ ref('trd_positions') }}

),

all_series as (

    select distinct
        exchange,
        market,
        symbol,
        interval_minutes

    from positions

),

portfolio as (

    select count(*) as series_count from all_series

),

final as (

    select
        positions.strategy,
        positions.block_at,
        sum(positions.gross_bps) / max(portfolio.series_count) as gross_bps,
        sum(positions.cost_bps) / max(portfolio.series_count) as cost_bps,
        sum(positions.funding_bps) / max(portfolio.series_count) as funding_bps,
        sum(positions.net_bps) / max(portfolio.series_count) as net_bps

    from positions
    cross join portfolio

    group by positions.strategy, positions.block_at

)

select * from final
