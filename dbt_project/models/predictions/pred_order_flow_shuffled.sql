{# Probabilities of ml_order_flow_shuffled after the end of its training, each written once per model version. #}

{{ config(materialized='incremental', incremental_strategy='append', full_refresh=false) }}

{% set model = ref('ml_order_flow_shuffled') %}
{% set dataset = ref('ds_order_flow') %}

with

closed as (

    select *
    from {{ dataset }}

    where closed_at >= {{ ml_train_end_at(model, dataset) }}

),

written as (

    select
        exchange,
        market,
        symbol,
        interval_minutes,
        opened_at

    {% if is_incremental() -%}
        from {{ this }}

        where model_version = {{ ml_model_version(model, dataset) }}
    {%- else -%}
        from closed

        where false
    {%- endif %}

),

fresh as (

    select closed.*

    from closed
    left join written
        on closed.exchange = written.exchange
        and closed.market = written.market
        and closed.symbol = written.symbol
        and closed.interval_minutes = written.interval_minutes
        and closed.opened_at = written.opened_at

    where written.opened_at is null

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
