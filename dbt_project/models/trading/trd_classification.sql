{# How well probabilities tell up from down on the test part, when labels overlap and symbols move together. #}

with

judged as (

    select
        strategy,
        opened_at,
        is_true,
        probability

    from {{ ref('trd_judged') }}

),

metrics as (

    {{ classification_metrics('select * from judged', ['strategy']) }}

),

sizes as (

    select
        strategy,
        count(*) as row_count,
        sum(case when is_true then 1 else 0 end) as positive_count,
        avg(case when is_true then 1e0 else 0e0 end) as positive_share

    from judged

    group by strategy

),

{# Kish's design effect: by how much the labels of one time vary together more than independent ones would. #}
moments as (

    select
        judged.strategy,
        judged.opened_at,
        count(*) as row_count,
        sum(case when judged.is_true then 1 else 0 end - sizes.positive_share) as deviation

    from judged
    inner join sizes on judged.strategy = sizes.strategy

    group by judged.strategy, judged.opened_at

),

design as (

    select
        moments.strategy,
        greatest(
            1, coalesce({{ safe_divide(
                'sum(power(moments.deviation, 2))',
                'max(sizes.row_count * sizes.positive_share * (1 - sizes.positive_share))'
            ) }}, 1)
        ) as design_effect

    from moments
    inner join sizes on moments.strategy = sizes.strategy

    group by moments.strategy

),

effective as (

    select
        sizes.*,
        metrics.accuracy,
        metrics.log_loss,
        metrics.roc_auc,
        design.design_effect,
        sizes.row_count / ({{ var('holding_bars') }} * design.design_effect) as effective_rows

    from sizes
    inner join metrics on sizes.strategy = metrics.strategy
    inner join design on sizes.strategy = design.strategy

),

{# Hanley and McNeil (1982), on the effective number of rows. #}
errors as (

    select
        *,
        sqrt({{ safe_divide(
            'roc_auc * (1 - roc_auc)'
            ~ ' + (effective_rows * positive_share - 1) * (roc_auc / (2 - roc_auc) - power(roc_auc, 2))'
            ~ ' + (effective_rows * (1 - positive_share) - 1)'
            ~ ' * (2 * power(roc_auc, 2) / (1 + roc_auc) - power(roc_auc, 2))',
            'power(effective_rows, 2) * positive_share * (1 - positive_share)'
        ) }}) as roc_auc_error

    from effective

),

final as (

    select
        strategy,
        row_count,
        positive_count,
        accuracy,
        log_loss,
        roc_auc,
        design_effect,
        effective_rows,
        roc_auc_error,
        roc_auc - 196e-2 * roc_auc_error as roc_auc_lower_bound

    from errors

)

select * from final
