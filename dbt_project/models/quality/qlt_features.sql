{# How good the features of every dataset are. A dataset with a model of its own is a row of the list, those of strategies come from the seed. #}

{% set strategies_model = ref('ds_strategies') %}
{% set strategies = strategies() %}

with

order_flow as (

    {{ feature_quality_of(
        'ds_order_flow', ref('ds_order_flow'), columns_of_type('ds_order_flow', 'float'), 'is_up_5', ref('ml_order_flow')
    ) }}

),

{% for strategy in strategies %}

{{ strategy.name }} as (

    {{ feature_quality_of(
        'ds_' ~ strategy.name,
        dataset_relation(strategies_model, strategy.name),
        strategy.families.values() | sum(start=[]),
        strategy.label
    ) }}

),

{% endfor %}

final as (

    select * from order_flow
    {% for strategy in strategies -%}
        union all
        select * from {{ strategy.name }}
    {% endfor %}
)

select * from final
