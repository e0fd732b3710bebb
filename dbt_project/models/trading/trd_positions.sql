{# Positions and profit of each strategy on every bar of the test part, net of costs. #}

{% set series = 'exchange, market, symbol, interval_minutes' %}

with

test_part as (

    select
        {{ series }},
        closed_at

    from {{ ref('ds_order_flow') }}

    where
        split = 'test'
        and closed_at >= {{ ml_validation_end_at(ref('ml_order_flow'), ref('ds_order_flow')) }}

),

all_series as (

    select distinct {{ series }} from test_part

),

test_start as (

    select min(closed_at) as start_at from test_part

),

signals as (

    {% for strategy, name in [('model', 'order_flow'), ('shuffled_labels', 'order_flow_shuffled')] -%}
        select
            {{ series }},
            opened_at,
            '{{ strategy }}' as strategy,
            signal

        from {{ ref('sig_' ~ name) }}

        where model_version = {{ ml_model_version(ref('ml_' ~ name), ref('ds_order_flow')) }}
        {{ 'union all' if not loop.last }}
    {% endfor %}
),

strategies as (

    {{ rows_of(["'model'", "'shuffled_labels'", "'buy_and_hold'", "'always_flat'"], 'strategy') }}

),

bars as (

    select
        bars.exchange,
        bars.market,
        bars.symbol,
        bars.interval_minutes,
        bars.opened_at,
        bars.closed_at,
        {{ bar_return() }} as bar_return

    from {{ ref('int_bars') }} as bars
    inner join all_series
        on bars.exchange = all_series.exchange
        and bars.market = all_series.market
        and bars.symbol = all_series.symbol
        and bars.interval_minutes = all_series.interval_minutes
    inner join test_start on bars.closed_at >= test_start.start_at

    window by_series as (
        partition by bars.exchange, bars.market, bars.symbol, bars.interval_minutes order by bars.opened_at
    )

),

signal_bars as (

    select
        strategies.strategy,
        bars.*,
        coalesce(signals.signal, 0) as signal

    from bars
    cross join strategies
    left join signals
        on strategies.strategy = signals.strategy
        and bars.exchange = signals.exchange
        and bars.market = signals.market
        and bars.symbol = signals.symbol
        and bars.interval_minutes = signals.interval_minutes
        and bars.opened_at = signals.opened_at

),

positions as (

    select
        *,
        case
            when strategy = 'buy_and_hold' then 1
            else {{ tranches('signal', 'partition by strategy, ' ~ series ~ ' order by opened_at') }}
        end as position

    from signal_bars

),

traded as (

    select
        *,
        abs(position - coalesce(lag(position) over by_strategy, 0)) as turnover,
        coalesce(case when position <> 0 then 1e4 * position * bar_return end, 0) as gross_bps

    from positions

    window by_strategy as (partition by strategy, {{ series }} order by opened_at)

),

final as (

    select
        strategy,
        {{ series }},
        opened_at,
        closed_at,
        bar_return,
        signal,
        position,
        turnover,
        gross_bps,
        {{ cost_bps() }} * turnover as cost_bps,
        gross_bps - {{ cost_bps() }} * turnover as net_bps

    from traded

)

select * from final
