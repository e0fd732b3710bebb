{# The model against its baselines on the test part, newest evaluation first. #}

with

final as (

    select
        model_version,
        strategy,
        tested_from,
        tested_to,
        roc_auc,
        roc_auc_lower_bound,
        log_loss,
        trade_count,
        gross_bps,
        cost_bps,
        net_bps,
        sharpe,
        t_statistic,
        max_drawdown_bps

    from {{ ref('trd_evaluation') }}

)

select * from final
order by tested_to desc, model_version, strategy
