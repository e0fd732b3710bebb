{# What every model that may vote says of a bar: the present version of each. #}

{{ config(materialized='view') }}

with

final as (

    {% for name, table in [
        ('order_flow', 'order_flow'),
        ('order_flow_forest', 'order_flow_members'),
        ('order_flow_linear', 'order_flow_members'),
        ('order_flow_network', 'order_flow_members'),
        ('order_flow_stacked', 'order_flow_stacked'),
    ] -%}
        select
            exchange,
            market,
            symbol,
            interval_minutes,
            opened_at,
            closed_at,
            available_at,
            model_name,
            model_version,
            probability

        from {{ ref('pred_' ~ table) }}

        where
            model_name = 'ml_{{ name }}'
            and model_version = {{ ml_model_version(ref('ml_' ~ name)) }}
        {{ 'union all' if not loop.last }}
    {% endfor %}
)

select * from final
