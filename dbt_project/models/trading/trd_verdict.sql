{# GO or NO-GO for the active model: every criterion with its value, its bound and the reason in words. #}

{% set minimum_trades = 100 %}
{% set minimum_t = 2 %}

with

version as (

    select
        {{ ml_model_version(ref('ml_order_flow'), ref('ds_order_flow')) }} as model_version

),

evaluation as (

    select *
    from {{ ref('trd_evaluation') }}

    where model_version = (select model_version from version)

),

judged_model as (

    select
        row_count,
        trade_count,
        roc_auc,
        roc_auc_lower_bound,
        net_bps_per_block,
        t_statistic,
        net_bps,
        sharpe

    from evaluation

    where strategy = 'model'

),

model as (

    select
        version.model_version,
        judged_model.*,
        shuffled.roc_auc as shuffled_roc_auc,
        shuffled.net_bps as shuffled_net_bps,
        hold.sharpe as hold_sharpe

    from version
    left join judged_model on true
    left join evaluation as shuffled on shuffled.strategy = 'shuffled_labels'
    left join evaluation as hold on hold.strategy = 'buy_and_hold'

),

criteria as (

    {% for name, value, bound, words in [
        ('out_of_sample_rows', 'coalesce(row_count, 0)', '0', 'labelled rows in the test part'),
        ('trades', 'coalesce(trade_count, 0)', minimum_trades - 1, 'signals in the test part; at least ' ~ minimum_trades ~ ' are needed'),
        ('roc_auc_above_shuffled_labels', 'roc_auc', 'shuffled_roc_auc', 'area under the ROC curve, against that of the model of shuffled labels'),
        ('roc_auc_lower_bound', 'roc_auc_lower_bound', '5e-1', 'lower 95 % bound of the area under the ROC curve, against a coin'),
        ('net_bps_per_block', 'net_bps_per_block', '0', 'basis points an hour net of costs, against staying flat'),
        ('t_statistic', 't_statistic', minimum_t, 't statistic of the hourly net profit'),
        ('net_bps_above_shuffled_labels', 'net_bps', 'shuffled_net_bps', 'basis points net of costs, against the model of shuffled labels'),
        ('sharpe_above_buy_and_hold', 'sharpe', 'hold_sharpe', 'net profit per unit of volatility (Sharpe ratio of a year), against buy-and-hold'),
    ] -%}
        select
            model_version,
            {{ loop.index }} as criterion_number,
            '{{ name }}' as criterion,
            cast({{ value }} as {{ type_float64() }}) as value,
            cast({{ bound }} as {{ type_float64() }}) as bound,
            row_count,
            '{{ words }}' as words

        from model
        {{ 'union all' if not loop.last }}
    {% endfor %}
),

judged as (

    select
        *,
        coalesce(value > bound, false) as is_passed

    from criteria

),

final as (

    select
        'ml_order_flow' as model_name,
        model_version,
        criterion_number,
        criterion,
        value,
        bound,
        is_passed,
        case
            when coalesce(row_count, 0) = 0 then 'no out-of-sample rows'
            when value is null or bound is null then concat('not known: ', words)
            else concat(
                'found ', cast(round(value, 4) as {{ dbt.type_string() }}),
                case when is_passed then ', above ' else ', not above ' end,
                cast(round(bound, 4) as {{ dbt.type_string() }}), ': ', words
            )
        end as reason,
        case
            when min(case when is_passed then 1 else 0 end) over (partition by model_version) = 1 then 'GO'
            else 'NO-GO'
        end as verdict

    from judged

)

select * from final
