{# GO or NO-GO for the model and each ensemble: every criterion with its value, bound, level and reason in words. #}

{% set version = ml_model_version(ref('ml_order_flow')) %}

with

strategies as (

    select
        'model' as strategy,
        'ml_order_flow' as model_name,
        {{ version }} as model_version,
        'thresholds' as candidates

    union all

    select distinct
        concat('ensemble_', ensemble_name) as strategy,
        ensemble_name as model_name,
        {{ version }} as model_version,
        'ensembles' as candidates

    from {{ ref('ensembles') }}

),

found as (

    select
        strategies.*,
        coalesce(own.row_count, 0) as row_count,
        coalesce(own.trade_count, 0) as trade_count,
        own.roc_auc,
        own.roc_auc_lower_bound,
        own.net_bps_per_block,
        own.t_statistic,
        own.net_bps,
        own.sharpe_per_block,
        shuffled.roc_auc as shuffled_roc_auc,
        shuffled.net_bps as shuffled_net_bps,
        hold.sharpe_per_block as hold_sharpe,
        auc_interval.lower_bound as bootstrap_lower_bound,
        information.t_statistic as information_t,
        sharpe.deflated_sharpe,
        gross.overfitting_probability,
        net.loss_probability

    from strategies
    {% for name, strategy in {
        'own': 'strategies.strategy', 'shuffled': "'shuffled_labels'", 'hold': "'buy_and_hold'" }.items() -%}
        left join {{ ref('trd_evaluation') }} as {{ name }}
            on strategies.model_version = {{ name }}.model_version and {{ name }}.strategy = {{ strategy }}
    {% endfor -%}
    left join {{ ref('trd_roc_auc_interval') }} as auc_interval on strategies.strategy = auc_interval.strategy
    left join {{ ref('trd_information') }} as information on strategies.strategy = information.strategy
    left join {{ ref('trd_sharpe') }} as sharpe on strategies.strategy = sharpe.strategy
    {% for measure in ['gross', 'net'] -%}
        left join {{ ref('trd_overfitting') }} as {{ measure }}
            on strategies.candidates = {{ measure }}.candidates and {{ measure }}.measure = '{{ measure }}'
    {% endfor %}
),

measured as (

    {% for name, value, reference in [
        ('out_of_sample_rows', 'row_count', '0'), ('trades', 'trade_count', '0'),
        ('roc_auc_above_shuffled_labels', 'roc_auc', 'shuffled_roc_auc'),
        ('roc_auc_lower_bound', 'roc_auc_lower_bound', '0'),
        ('roc_auc_bootstrap_lower_bound', 'bootstrap_lower_bound', '0'),
        ('information_coefficient_t', 'information_t', '0'),
        ('net_bps_per_block', 'net_bps_per_block', '0'), ('t_statistic', 't_statistic', '0'),
        ('net_bps_above_shuffled_labels', 'net_bps', 'shuffled_net_bps'),
        ('sharpe_above_buy_and_hold', 'sharpe_per_block', 'hold_sharpe'), ('deflated_sharpe', 'deflated_sharpe', '0'),
        ('overfitting_probability', 'overfitting_probability', '0'), ('loss_probability', 'loss_probability', '0'),
    ] -%}
        select
            strategy,
            model_name,
            model_version,
            row_count,
            '{{ name }}' as criterion,
            cast({{ value }} as {{ type_float64() }}) as value,
            cast({{ reference }} as {{ type_float64() }}) as reference

        from found
        {{ 'union all' if not loop.last }}
    {% endfor %}
),

levels as (

    select
        measured.*,
        criteria.criterion_number,
        criteria.is_higher_better,
        criteria.words,
        measured.reference + criteria.minimum as bound,
        {% for level in criterion_levels() -%}
            coalesce(
                case
                    when criteria.is_higher_better then measured.value > measured.reference + criteria.{{ level }}
                    else measured.value < measured.reference + criteria.{{ level }}
                end, false
            ) as is_{{ level }}{{ ',' if not loop.last }}
        {% endfor %}
    from measured
    inner join {{ ref('criteria') }} as criteria on measured.criterion = criteria.criterion

),

graded as (

    select
        *,
        case when not is_minimum then 0 when not is_target then 1 when not is_exceptional then 2 else 3 end as grade

    from levels

),

final as (

    select
        strategy,
        model_name,
        model_version,
        criterion_number,
        criterion,
        value,
        bound,
        is_minimum as is_passed,
        {{ level_name('grade') }} as level,
        case
            when row_count = 0 then 'no out-of-sample rows'
            when value is null or bound is null then concat('not known: ', words)
            else concat(
                'found ', cast(round(value, 4) as {{ dbt.type_string() }}),
                case when is_minimum then ', ' else ', not ' end,
                case when is_higher_better then 'above ' else 'below ' end,
                cast(round(bound, 4) as {{ dbt.type_string() }}), ': ', words
            )
        end as reason,
        case when min(grade) over (partition by strategy) > 0 then 'GO' else 'NO-GO' end as verdict,
        {{ level_name('min(grade) over (partition by strategy)') }} as verdict_level

    from graded

)

select * from final
