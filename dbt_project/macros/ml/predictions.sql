{# What a model says of the rows of a dataset that closed after its training and that the CTE `written`, of model_version and the key, has not for
   its present version: keys and times, model_name, model_version, predicted_<label>, the probability that it is true, and predicted_at. `rows`
   names a CTE with the rows, where they are not the dataset's own. #}
{% macro new_predictions(model, dataset, rows=none) -%}
    {%- set key = ['exchange', 'market', 'symbol', 'interval_minutes', 'opened_at'] -%}
    {%- set version = ml_model_version(model, dataset) -%}
    {%- set label = ml_label(model) -%}
    {%- set fresh -%}
        select closed.*
        from {{ rows or dataset }} as closed
        left join (select * from written where model_version = {{ version }}) as known
            on {% for column in key %}closed.{{ column }} = known.{{ column }}{{ ' and ' if not loop.last }}{% endfor %}
        where known.opened_at is null and closed.closed_at >= {{ ml_train_end_at(model, dataset) }}
    {%- endset -%}
    select
        {{ key | join(', ') }},
        closed_at,
        available_at,
        '{{ model.identifier }}' as model_name,
        {{ version }} as model_version,
        predicted_{{ label }},
        {{ ml_probability('predicted_' ~ label ~ '_probs', 'true') }} as probability,
        {{ utc('current_timestamp') }} as predicted_at
    from ({{ ml_predict(model, fresh) }}) as predicted
{%- endmacro %}


{# The predictions of a model beside the threshold of their version, and the side to take. #}
{% macro signals_of(predictions, thresholds) -%}
    select
        predictions.exchange,
        predictions.market,
        predictions.symbol,
        predictions.interval_minutes,
        predictions.opened_at,
        predictions.closed_at,
        predictions.available_at,
        predictions.model_name,
        predictions.model_version,
        predictions.probability,
        thresholds.threshold,
        {{ signal('predictions.probability', 'thresholds.threshold') }} as signal
    from {{ predictions }} as predictions
    left join {{ thresholds }} as thresholds
        on predictions.model_name = thresholds.model_name
        and predictions.model_version = thresholds.model_version
{%- endmacro %}
