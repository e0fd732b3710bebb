{# Probabilities of ml_order_flow_stacked over those of its members, each written once per model version. #}

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

        from {{ ref('pred_order_flow_votes') }}

        where false
    {%- endif %}

),

final as (

    {{ new_predictions(ref('ml_order_flow_stacked'), ref('pred_order_flow_votes'), since) }}

)

select * from final
