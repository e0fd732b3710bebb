{#
    What the models that ml_order_flow_stacked asks said of a bar, in one row: the present version of each, and only
    bars that all know.
#}

{{ config(materialized='view') }}

{% set key = 'exchange, market, symbol, interval_minutes, opened_at' %}
{% set members = {
    'boosted': 'order_flow', 'forest': 'order_flow_forest', 'linear': 'order_flow_linear', 'network': 'order_flow_network',
} %}

with

{% for member, name in members.items() %}

{{ member }} as (

    select
        {{ key }},
        closed_at,
        available_at,
        probability as {{ member }}_probability

    from {{ ref('pred_order_flow' ~ ('_members' if member != 'boosted')) }}

    where
        model_name = 'ml_{{ name }}'
        and model_version = {{ ml_model_version(ref('ml_' ~ name)) }}

),

{% endfor %}

final as (

    select
        {{ key }},
        boosted.closed_at,
        greatest(
            boosted.available_at, forest.available_at, linear.available_at, network.available_at
        ) as available_at,
        boosted_probability,
        forest_probability,
        linear_probability,
        network_probability

    from boosted
    inner join forest using ({{ key }})
    inner join linear using ({{ key }})
    inner join network using ({{ key }})

)

select * from final
