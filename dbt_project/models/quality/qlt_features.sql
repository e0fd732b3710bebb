{# How good the features of every dataset are. #}

{% set models = {'ds_order_flow': ref('ml_order_flow')} %}

with

{% for dataset, model in models.items() %}

learned_{{ dataset }} as (

    {{ ml_feature_importance(model) }}

),

{% endfor %}

importances as (

    {% for dataset in models -%}
        select
            '{{ dataset }}' as dataset,
            feature,
            {{ safe_divide(
                'importance_weight * importance_gain', 'sum(importance_weight * importance_gain) over ()'
            ) }} as importance

        from learned_{{ dataset }}
        {{ 'union all' if not loop.last }}
    {% endfor %}
),

final as (

    select
        coverage.*,
        relations.train_row_count,
        drift.recent_row_count,
        drift.psi,
        relations.correlation,
        relations.rank_correlation,
        relations.mutual_information,
        relations.mutual_information_of_chance,
        collinearity.collinear_feature,
        collinearity.collinearity,
        importances.importance

    from {{ ref('qlt_coverage') }} as coverage
    left join {{ ref('qlt_relations') }} as relations
        on coverage.dataset = relations.dataset and coverage.feature = relations.feature
    left join {{ ref('qlt_drift') }} as drift
        on coverage.dataset = drift.dataset and coverage.feature = drift.feature
    left join {{ ref('qlt_collinearity') }} as collinearity
        on coverage.dataset = collinearity.dataset and coverage.feature = collinearity.feature
    left join importances
        on coverage.dataset = importances.dataset and coverage.feature = importances.feature

)

select * from final
