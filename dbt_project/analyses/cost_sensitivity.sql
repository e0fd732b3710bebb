{# What would be left of the model's gross profit at other costs of trading once. #}

with

costs as (

    {{ rows_of([0, 1, 2, 3, 5, 75e-1, 10, 15], 'cost_bps') }}

),

positions as (

    select
        strategy,
        exchange,
        market,
        symbol,
        interval_minutes,
        gross_bps,
        turnover

    from {{ ref('trd_positions') }}

    where strategy in ('model', 'shuffled_labels', 'buy_and_hold')

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

totals as (

    select
        positions.strategy,
        sum(positions.gross_bps) / max(portfolio.series_count) as gross_bps,
        sum(positions.turnover) / max(portfolio.series_count) as turnover

    from positions
    cross join portfolio

    group by positions.strategy

),

final as (

    select
        totals.strategy,
        costs.cost_bps,
        totals.gross_bps,
        totals.turnover,
        totals.gross_bps - costs.cost_bps * totals.turnover as net_bps,
        {{ safe_divide('totals.gross_bps', 'totals.turnover') }} as break_even_cost_bps

    from totals
    cross join costs

)

select * from final
order by strategy, cost_bps
