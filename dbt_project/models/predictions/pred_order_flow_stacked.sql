{# Probabilities of ml_order_flow_stacked over those of its members, each written once per model version. #}

{{ config(materialized='incremental', incremental_strategy='append', full_refresh=false) }}

{% set model = ref('ml_order_flow_stacked') %}
{% set dataset = ref('ds_order_flow') %}
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
        and model_version = {{ ml_model_version(ref('ml_' ~ name), dataset) }}

),

{% endfor %}

written as (

    select {{ key }}

    {% if is_incremental() -%}
        from {{ this }}

        where model_version = {{ ml_model_version(model, dataset) }}
    {%- else -%}
        from boosted

        where false
    {%- endif %}

),

votes as (

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

),

fresh as (

    select votes.*

    from votes
    left join written
        on votes.exchange = written.exchange
        and votes.market = written.market
        and votes.symbol = written.symbol
        and votes.interval_minutes = written.interval_minutes
        and votes.opened_at = written.opened_at

    where written.opened_at is null and votes.closed_at >= {{ ml_train_end_at(model, dataset) }}

),

predicted as (

    {{ ml_predict(model, 'select * from fresh') }}

),

final as (

    select
        {{ key }},
        closed_at,
        available_at,
        'ml_order_flow_stacked' as model_name,
        {{ ml_model_version(model, dataset) }} as model_version,
        predicted_is_up_5,
        {{ ml_probability('predicted_is_up_5_probs', 'true') }} as probability,
        {{ utc('current_timestamp') }} as predicted_at

    from predicted

)

select * from final
