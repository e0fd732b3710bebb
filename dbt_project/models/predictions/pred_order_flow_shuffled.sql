{# Probabilities of ml_order_flow_shuffled for bars after the end of its training, each written once per model version. #}

{{ config(materialized='incremental', incremental_strategy='append', full_refresh=false) }}

{% set model = ref('ml_order_flow_shuffled') %}
{% set dataset = ref('ds_order_flow') %}

with

fresh as (

    select *
    from {{ dataset }} as dataset

    where
        closed_at >= {{ ml_train_end_at(model, dataset) }}
        {% if is_incremental() -%}
            and not exists (
                select 1
                from {{ this }} as written
                where
                    written.model_version = {{ ml_model_version(model, dataset) }}
                    and written.exchange = dataset.exchange
                    and written.market = dataset.market
                    and written.symbol = dataset.symbol
                    and written.interval_minutes = dataset.interval_minutes
                    and written.opened_at = dataset.opened_at
            )
        {%- endif %}

),

predicted as (

    {{ ml_predict(model, 'select * from fresh') }}

),

final as (

    select
        exchange,
        market,
        symbol,
        interval_minutes,
        opened_at,
        closed_at,
        available_at,
        'ml_order_flow_shuffled' as model_name,
        {{ ml_model_version(model, dataset) }} as model_version,
        predicted_is_up_5,
        {{ ml_probability('predicted_is_up_5_probs', 'true') }} as probability,
        {{ utc('current_timestamp') }} as predicted_at

    from predicted

)

select * from final
