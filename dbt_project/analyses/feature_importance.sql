{# What the model splits on, beside what the model of shuffled labels splits on: more than noise is worth a look. #}

with

learned as (

    {{ ml_feature_importance(ref('ml_order_flow')) }}

),

shuffled as (

    {{ ml_feature_importance(ref('ml_order_flow_shuffled')) }}

),

final as (

    select
        learned.feature,
        learned.importance_weight,
        learned.importance_gain,
        learned.importance_cover,
        shuffled.importance_gain as shuffled_importance_gain

    from learned
    left join shuffled on learned.feature = shuffled.feature

)

select * from final
order by importance_weight * importance_gain desc, feature
