{# The model and its baselines over the test part: classification and profit. #}

{{ config(
    materialized='incremental',
    unique_key=['model_version', 'strategy'],
    on_schema_change='append_new_columns',
    full_refresh=false,
) }}

with

version as (

    select
        {{ ml_model_version(ref('ml_order_flow')) }} as model_version

),

positions as (

    select
        strategy,
        min(opened_at) as tested_from,
        max(closed_at) as tested_to,
        count(*) as bar_count,
        cast(sum(abs(signal)) as {{ dbt.type_bigint() }}) as signal_count,
        sum(case when is_entry then 1 else 0 end) as trade_count,
        sum(turnover) as turnover

    from {{ ref('trd_positions') }}

    group by strategy

),

cumulated as (

    select
        *,
        sum(net_bps) over (
            partition by strategy order by block_at rows between unbounded preceding and current row
        ) as equity_bps

    from {{ ref('trd_blocks') }}

),

drawn as (

    select
        *,
        greatest(0, max(equity_bps) over (
            partition by strategy order by block_at rows between unbounded preceding and current row
        )) - equity_bps as drawdown_bps

    from cumulated

),

profits as (

    select
        strategy,
        count(*) as block_count,
        sum(gross_bps) as gross_bps,
        sum(cost_bps) as cost_bps,
        sum(funding_bps) as funding_bps,
        sum(net_bps) as net_bps,
        avg(net_bps) as net_bps_per_block,
        stddev_samp(net_bps) as volatility_bps_per_block,
        {{ safe_divide('avg(net_bps)', 'stddev_samp(net_bps)') }} as sharpe_per_block,
        max(drawdown_bps) as max_drawdown_bps

    from drawn

    group by strategy

),

final as (

    select
        'ml_order_flow' as model_name,
        version.model_version,
        positions.strategy,
        positions.tested_from,
        positions.tested_to,
        positions.bar_count,
        classification.row_count,
        classification.roc_auc,
        classification.roc_auc_lower_bound,
        classification.log_loss,
        classification.accuracy,
        positions.signal_count,
        positions.trade_count,
        positions.turnover,
        profits.block_count,
        profits.gross_bps,
        profits.cost_bps,
        profits.funding_bps,
        profits.net_bps,
        profits.net_bps_per_block,
        profits.volatility_bps_per_block,
        profits.sharpe_per_block,
        case
            when profits.block_count >= 24 * {{ var('sharpe_minimum_days') }}
                then profits.sharpe_per_block * sqrt(24 * 365)
        end as sharpe,
        profits.sharpe_per_block * sqrt(profits.block_count) as t_statistic,
        profits.max_drawdown_bps

    from positions
    cross join version
    inner join profits on positions.strategy = profits.strategy
    left join {{ ref('trd_classification') }} as classification on positions.strategy = classification.strategy

)

select * from final
