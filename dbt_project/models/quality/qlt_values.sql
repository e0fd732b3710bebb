{# The values of all features of all datasets under each other: ds_order_flow and those of the strategies. #}

{{ config(materialized='view') }}

{% set strategies_model = ref('ds_strategies') %}

with

all_values as (

    {{ feature_values_of('ds_order_flow', ref('ds_order_flow'), columns_of_type('ds_order_flow', 'float'), 'is_up_5') }}

    {% for strategy in strategies() -%}

        union all

        {{ feature_values_of(
            'ds_' ~ strategy.name,
            dataset_relation(strategies_model, strategy.name),
            strategy.families.values() | sum(start=[]),
            strategy.label
        ) }}

    {% endfor %}

)

select * from all_values
