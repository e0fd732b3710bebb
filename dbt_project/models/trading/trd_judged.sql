{# The probabilities of the test part beside what came of them, for the models that are judged. #}

{% set series = 'exchange, market, symbol, interval_minutes' %}
{% set dataset = ref('ds_order_flow') %}

with

labels as (

    select
        {{ series }},
        opened_at,
        closed_at,
        label_end_at,
        is_up_5 as is_true,
        return_5 as future_return

    from {{ dataset }}

    where split = 'test'

),

{% for name in ['order_flow', 'order_flow_shuffled'] %}

known_{{ name }} as (

    {{ ml_known(ref('ml_' ~ name), dataset) }}

),

{% endfor %}

judged as (

    {% for strategy, name in [('model', 'order_flow'), ('shuffled_labels', 'order_flow_shuffled')] -%}
        select
            '{{ strategy }}' as strategy,
            predictions.model_version,
            labels.exchange,
            labels.market,
            labels.symbol,
            labels.interval_minutes,
            labels.opened_at,
            labels.closed_at,
            labels.label_end_at,
            labels.is_true,
            labels.future_return,
            predictions.probability

        from labels
        inner join {{ ref('pred_' ~ name) }} as predictions
            on labels.exchange = predictions.exchange
            and labels.market = predictions.market
            and labels.symbol = predictions.symbol
            and labels.interval_minutes = predictions.interval_minutes
            and labels.opened_at = predictions.opened_at
        inner join known_{{ name }} as known
            on predictions.model_version = known.model_version
            and labels.closed_at >= known.validation_end_at
        {{ 'union all' if not loop.last }}
    {% endfor %}
)

select * from judged
