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

    {{ ml_known(ref('ml_' ~ name)) }}

),

{% endfor %}

{# An ensemble knows what any of its models knew. #}
known_ensembles as (

    select max(validation_end_at) as validation_end_at

    from (
        {% for name in ['', '_forest', '_linear', '_network', '_stacked'] -%}
            {{ ml_known(ref('ml_order_flow' ~ name)) }}
            {{ 'union all' if not loop.last }}
        {% endfor %}
    ) as members

),

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

        union all

    {% endfor %}
    select
        concat('ensemble_', ensembles.ensemble_name) as strategy,
        known.model_version,
        labels.exchange,
        labels.market,
        labels.symbol,
        labels.interval_minutes,
        labels.opened_at,
        labels.closed_at,
        labels.label_end_at,
        labels.is_true,
        labels.future_return,
        ensembles.probability

    from labels
    inner join {{ ref('sig_ensembles') }} as ensembles
        on labels.exchange = ensembles.exchange
        and labels.market = ensembles.market
        and labels.symbol = ensembles.symbol
        and labels.interval_minutes = ensembles.interval_minutes
        and labels.opened_at = ensembles.opened_at
    inner join known_ensembles on labels.closed_at >= known_ensembles.validation_end_at
    cross join known_order_flow as known

    where ensembles.reason <> 'a model is missing' and ensembles.probability is not null

)

select * from judged
