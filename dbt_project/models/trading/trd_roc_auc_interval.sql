{# The interval of the area under the ROC curve by a bootstrap of blocks of time. #}

{% set block_count = var('bootstrap_blocks') %}

with

times as (

    select
        opened_at,
        ntile({{ block_count }}) over (order by opened_at) - 1 as time_block

    from (select distinct opened_at from {{ ref('trd_judged') }}) as distinct_times

),

{# Probabilities to four digits: their number is bounded, whatever the rows. #}
levels as (

    select
        judged.strategy,
        times.time_block,
        round(judged.probability, 4) as level,
        sum(case when judged.is_true then 1 else 0 end) as positives,
        sum(case when judged.is_true then 0 else 1 end) as negatives

    from {{ ref('trd_judged') }} as judged
    inner join times on judged.opened_at = times.opened_at

    group by judged.strategy, times.time_block, round(judged.probability, 4)

),

all_blocks as (

    {{ numbers(block_count, 'time_block') }}

),

all_levels as (

    select distinct
        strategy,
        level

    from levels

),

{# Of each block's false rows those below a level, with half of those on it. #}
below as (

    select
        all_levels.strategy,
        all_levels.level,
        all_blocks.time_block,
        sum(coalesce(levels.negatives, 0)) over (
            partition by all_levels.strategy, all_blocks.time_block order by all_levels.level
            rows between unbounded preceding and current row
        ) - coalesce(levels.negatives, 0) / 2e0 as negatives_below,
        sum(coalesce(levels.negatives, 0)) over (
            partition by all_levels.strategy, all_blocks.time_block
        ) as negatives

    from all_levels
    cross join all_blocks
    left join levels
        on all_levels.strategy = levels.strategy
        and all_levels.level = levels.level
        and all_blocks.time_block = levels.time_block

),

{# The area of any resample is a weighted sum of these. #}
pairs as (

    select
        levels.strategy,
        levels.time_block as positive_block,
        below.time_block as negative_block,
        sum(levels.positives * below.negatives_below) as ordered_pairs,
        sum(levels.positives * below.negatives) as all_pairs

    from levels
    inner join below on levels.strategy = below.strategy and levels.level = below.level

    group by levels.strategy, levels.time_block, below.time_block

),

weights as (

    {{ bootstrap_weights(var('bootstrap_draws'), block_count) }}

),

areas as (

    select
        pairs.strategy,
        positive_weights.draw_number,
        {{ safe_divide(
            'sum(positive_weights.weight * negative_weights.weight * pairs.ordered_pairs)',
            'sum(positive_weights.weight * negative_weights.weight * pairs.all_pairs)'
        ) }} as roc_auc

    from pairs
    inner join weights as positive_weights on pairs.positive_block = positive_weights.time_block
    inner join weights as negative_weights
        on pairs.negative_block = negative_weights.time_block
        and positive_weights.draw_number = negative_weights.draw_number

    group by pairs.strategy, positive_weights.draw_number

),

placed as (

    select
        strategy,
        roc_auc,
        row_number() over (partition by strategy order by roc_auc) as place,
        count(*) over (partition by strategy) as draw_count

    from areas

    where roc_auc is not null

),

final as (

    select
        strategy,
        max(draw_count) as draw_count,
        stddev_samp(roc_auc) as roc_auc_error,
        min(case when place >= 25e-3 * draw_count then roc_auc end) as lower_bound,
        min(case when place >= 975e-3 * draw_count then roc_auc end) as upper_bound

    from placed

    group by strategy

)

select * from final
