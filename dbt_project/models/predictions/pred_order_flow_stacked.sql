{# Probabilities of ml_order_flow_stacked over those of its members, each written once per model version. #}

{{ config(materialized='incremental', full_refresh=false) }}

{% set dataset = ref('ds_order_flow') %}

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
    {%- else -%}
        cast(null as {{ dbt.type_string() }}) as model_version

        from {{ dataset }}

        where false
    {%- endif %}

),

final as (

    {{ new_predictions(ref('ml_order_flow_stacked'), dataset, rows=ref('pred_order_flow_votes')) }}

)

select * from final
