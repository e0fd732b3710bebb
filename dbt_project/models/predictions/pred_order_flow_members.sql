{# Probabilities of the other models of the question of ml_order_flow, each written once per model version. #}

{{ config(materialized='incremental', incremental_strategy='append', full_refresh=false) }}

{% set dataset = ref('ds_order_flow') %}
{% set members = ['order_flow_forest', 'order_flow_linear', 'order_flow_network'] %}
{% set series = 'exchange, market, symbol, interval_minutes' %}

with

{% for member in members %}
{% set model = ref('ml_' ~ member) %}

written_{{ member }} as (

    select
        {{ series }},
        opened_at

    {% if is_incremental() -%}
        from {{ this }}

        where model_version = {{ ml_model_version(model, dataset) }}
    {%- else -%}
        from {{ dataset }}

        where false
    {%- endif %}

),

fresh_{{ member }} as (

    select closed.*

    from {{ dataset }} as closed
    left join written_{{ member }} as written
        on closed.exchange = written.exchange
        and closed.market = written.market
        and closed.symbol = written.symbol
        and closed.interval_minutes = written.interval_minutes
        and closed.opened_at = written.opened_at

    where written.opened_at is null and closed.closed_at >= {{ ml_train_end_at(model, dataset) }}

),

predicted_{{ member }} as (

    {{ ml_predict(model, 'select * from fresh_' ~ member) }}

),

{% endfor %}

final as (

    {% for member in members -%}
        select
            {{ series }},
            opened_at,
            closed_at,
            available_at,
            'ml_{{ member }}' as model_name,
            {{ ml_model_version(ref('ml_' ~ member), dataset) }} as model_version,
            predicted_is_up_5,
            {{ ml_probability('predicted_is_up_5_probs', 'true') }} as probability,
            {{ utc('current_timestamp') }} as predicted_at

        from predicted_{{ member }}
        {{ 'union all' if not loop.last }}
    {% endfor %}
)

select * from final
