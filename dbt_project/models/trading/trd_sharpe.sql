{# How surely each strategy's Sharpe ratio is more than luck, given how many were tried. #}

with

blocks as (

    select
        strategy,
        net_bps,
        avg(net_bps) over (partition by strategy) as mean_bps

    from {{ ref('trd_blocks') }}

),

moments as (

    select
        strategy,
        count(*) as block_count,
        avg(net_bps) as mean_bps,
        stddev_samp(net_bps) as deviation_bps,
        avg(power(net_bps - mean_bps, 2)) as second_moment,
        avg(power(net_bps - mean_bps, 3)) as third_moment,
        avg(power(net_bps - mean_bps, 4)) as fourth_moment

    from blocks

    group by strategy

),

thresholds as (

    select count(distinct threshold) as threshold_count from {{ ref('sig_candidate_blocks') }}

),

shapes as (

    select
        moments.strategy,
        moments.block_count,
        {{ safe_divide('moments.mean_bps', 'moments.deviation_bps') }} as sharpe_per_block,
        {{ safe_divide('moments.third_moment', 'power(moments.second_moment, 15e-1)') }} as skewness,
        {{ safe_divide('moments.fourth_moment', 'power(moments.second_moment, 2)') }} as kurtosis,
        {{ ml_trial_count(ref('ml_order_flow')) }} * thresholds.threshold_count as trial_count

    from moments
    cross join thresholds

),

luck as (

    select
        *,
        {# Without skill the ratio of n observations varies by 1 / (n - 1): Lo (2002). #}
        {{ safe_divide(expected_maximum('trial_count'), 'sqrt(greatest(block_count - 1, 0))') }} as luck_per_block

    from shapes

),

scores as (

    select
        *,
        {{ sharpe_score('sharpe_per_block', '0', 'block_count', 'skewness', 'kurtosis') }} as score_against_zero,
        {{ sharpe_score('sharpe_per_block', 'luck_per_block', 'block_count', 'skewness', 'kurtosis') }}
            as score_against_luck

    from luck

),

final as (

    select
        strategy,
        block_count,
        sharpe_per_block,
        skewness,
        kurtosis,
        trial_count,
        luck_per_block,
        {{ normal_cdf('score_against_zero') }} as probabilistic_sharpe,
        {{ normal_cdf('score_against_luck') }} as deflated_sharpe

    from scores

)

select * from final
