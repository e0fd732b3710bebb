{# What a model says of rows (a relation) that opened from `since` on, closed after its training and are not in the CTE `written`, of model_version
   and the key, for its present version: keys and times, model_name, model_version, predicted_<label>, the probability that it is true, and
   predicted_at. The condition on `opened_at` that the end of the training implies leaves out partitions on BigQuery. #}
{% macro new_predictions(model, rows, since) -%}
    {%- set key = ['exchange', 'market', 'symbol', 'interval_minutes', 'opened_at'] -%}
    {%- set version = ml_model_version(model) -%}
    {%- set train_end_at = ml_train_end_at(model) -%}
    {%- set label = ml_label(model) -%}
    {%- set fresh -%}
        select closed.*
        from {{ rows }} as closed
        left join (select * from written where model_version = {{ version }}) as known
            on {% for column in key %}closed.{{ column }} = known.{{ column }}{{ ' and ' if not loop.last }}{% endfor %}
        where
            known.opened_at is null
            and closed.closed_at >= {{ train_end_at }}
            and closed.opened_at >= {{ add_minutes(train_end_at, -(var('interval_minutes') | max)) }}
            and closed.opened_at >= {{ since }}
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


{# The UTC midnight from which on there may be rows without a prediction, a literal. DuckDB looks at all of them, as reading them costs next to
   nothing there, so that predictions that somebody deleted come back. #}
{% macro unpredicted_from() %}{{ return(adapter.dispatch('unpredicted_from', 'tapehouse')()) }}{% endmacro %}

{% macro default__unpredicted_from() %}{{ return(epoch()) }}{% endmacro %}

{% macro bigquery__unpredicted_from() %}{{ return(changed_from()) }}{% endmacro %}


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
