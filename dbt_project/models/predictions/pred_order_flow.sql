{# Probabilities of ml_order_flow after the end of its training, each written once per model version. #}

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

    {{ new_predictions(ref('ml_order_flow'), ref('ds_order_flow'), since) }}

)

select * from final
