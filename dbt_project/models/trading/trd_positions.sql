{# Positions and profit of each strategy on every bar of the test part, net of costs. #}

{% set series = 'exchange, market, symbol, interval_minutes' %}

with

signals as (

    {% for strategy, name in [('model', 'order_flow'), ('shuffled_labels', 'order_flow_shuffled')] -%}
        select
            {{ series }},
            opened_at,
            '{{ strategy }}' as strategy,
            signal

        from {{ ref('sig_' ~ name) }}

        where model_version = {{ ml_model_version(ref('ml_' ~ name)) }}

        union all
    {% endfor %}
    select
        {{ series }},
        opened_at,
        concat('ensemble_', ensemble_name) as strategy,
        signal

    from {{ ref('sig_ensembles') }}

),

strategies as (

    {{ rows_of(["'model'", "'shuffled_labels'", "'buy_and_hold'", "'always_flat'"], 'strategy') }}

    union all

    select distinct concat('ensemble_', ensemble_name) as strategy from {{ ref('sig_ensembles') }}

),

bars as (

    select
        {{ series }},
        opened_at,
        closed_at,
        is_tradable,
        bar_return,
        funding_rate

    from {{ ref('sig_trading_bars') }}

    where part = 'test'

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

wanted as (

    select
        *,
        case
            when strategy = 'buy_and_hold' then 1
            else {{ tranches('signal', 'is_tradable', 'by_strategy') }}
        end as wanted_position

    from signal_bars

    window by_strategy as (partition by strategy, {{ series }} order by opened_at)

),

held as (

    select
        *,
        {{ latest('wanted_position', 'by_strategy') }} as position

    from wanted

    window by_strategy as (partition by strategy, {{ series }} order by opened_at)

),

changed as (

    select
        *,
        coalesce(lag(position) over by_strategy, 0) as earlier_position

    from held

    window by_strategy as (partition by strategy, {{ series }} order by opened_at)

),

traded as (

    select
        *,
        position <> 0 and sign(position) <> sign(earlier_position) as is_entry,
        abs(position - earlier_position) as turnover,
        {{ gross_bps('position', 'bar_return') }} as gross_bps,
        1e4 * position * funding_rate as funding_bps

    from changed

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
        is_entry,
        turnover,
        gross_bps,
        {{ cost_bps() }} * turnover as cost_bps,
        funding_bps,
        gross_bps - {{ cost_bps() }} * turnover - funding_bps as net_bps

    from traded

)

select * from final
