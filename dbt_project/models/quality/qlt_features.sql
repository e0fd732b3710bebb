{# How good the features of every dataset are. #}

{% set models = var('importance_models') %}

with

{% for dataset, model in models.items() %}

learned_{{ dataset }} as (

    {{ ml_feature_importance(ref(model)) }}

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
    {% else -%}
        select
            cast(null as {{ dbt.type_string() }}) as dataset,
            cast(null as {{ dbt.type_string() }}) as feature,
            cast(null as {{ type_float64() }}) as importance

        from {{ ref('qlt_coverage') }}

        where false
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
        importances.importance,
        case
            when importances.importance is not null then null
            when coverage.dataset not in ('{{ (models | list or ['none']) | join("', '") }}')
                then 'the variable importance_models names no model of the dataset'
            when max(importances.importance) over (partition by coverage.dataset) is null then 'its model has no trees'
            else 'its model does not split on it'
        end as importance_reason

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
