{# Probabilities of the other models of the question of ml_order_flow, each written once per model version. #}

{{ config(materialized='incremental', full_refresh=false) }}

{% set since = unpredicted_from() if is_incremental() else epoch() %}

with

written as (

    select
        exchange,
        market,
        symbol,
        interval_minutes,
        opened_at,
    {% if is_incremental() -%}
        model_version

        from {{ this }}

        where opened_at >= {{ since }}
    {%- else -%}
        cast(null as {{ dbt.type_string() }}) as model_version

        from {{ ref('ds_order_flow') }}

        where false
    {%- endif %}

),

final as (

    {% for member in ['order_flow_forest', 'order_flow_linear', 'order_flow_network'] -%}
        {{ new_predictions(ref('ml_' ~ member), ref('ds_order_flow'), since) }}
        {{ 'union all' if not loop.last }}
    {% endfor %}
)

select * from final
