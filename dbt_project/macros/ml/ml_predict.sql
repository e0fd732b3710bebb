{# ML.PREDICT over a query: predicted_<label>, predicted_<label>_probs (an array of label and prob, the likelier first) and the query's columns.

   On DuckDB the features and their order are the registry's at the time the node runs. #}
{% macro ml_predict(model, query) %}{{ return(adapter.dispatch('ml_predict', 'tapehouse')(model, query)) }}{% endmacro %}

{% macro default__ml_predict(model, query) -%}
    {%- set label = ml_label(model) -%}
    {%- set active = ml_active_version(model) -%}
    select
        true_probability_ > 0.5 as predicted_{{ label }},
        case
            when true_probability_ > 0.5
                then [
                    {'label': true, 'prob': true_probability_}, {'label': false, 'prob': 1 - true_probability_}
                ]
            else [{'label': false, 'prob': 1 - true_probability_}, {'label': true, 'prob': true_probability_}]
        end as predicted_{{ label }}_probs,
        * exclude (true_probability_)
    from (
        select
            *,
            {% if active -%}
                tapehouse_predict(
                    '{{ active["model_version"] }}', [{{ active["features"] | map('tojson') | join(', ') }}]::float[]
                ) as true_probability_
            {%- else -%}
                cast(null as double) as true_probability_
            {%- endif %}
        from ({{ query }})
        {{ 'where false' if not active }}
    )
{%- endmacro %}

{% macro bigquery__ml_predict(model, query) -%}
    select * from ml.predict(model {{ model }}, ({{ query }}))
{%- endmacro %}


{# The probability of one label, out of predicted_<label>_probs. #}
{% macro ml_probability(probabilities, label) %}
    {{- return(adapter.dispatch('ml_probability', 'tapehouse')(probabilities, label)) -}}
{% endmacro %}

{% macro default__ml_probability(probabilities, label) -%}
    list_filter({{ probabilities }}, lambda candidate: candidate.label = {{ label }})[1].prob
{%- endmacro %}

{% macro bigquery__ml_probability(probabilities, label) -%}
    (select candidate.prob from unnest({{ probabilities }}) as candidate where candidate.label = {{ label }})
{%- endmacro %}


{# The label column of a model, from its configuration. #}
{% macro ml_label(model) %}
    {%- set label = namespace(name='label') -%}
    {%- if execute -%}
        {%- for node in graph.nodes.values() if node.resource_type == 'model' and node.alias == model.identifier -%}
            {%- set label.name = node.config['input_label_cols'][0] -%}
        {%- endfor -%}
    {%- endif -%}
    {{- return(label.name) -}}
{% endmacro %}


{# Version and features of a model's active version; none before it is trained. #}
{% macro ml_active_version(model) %}
    {%- if execute -%}
        {%- set rows = run_query(
            "select model_version, to_json(features)::varchar from registry.active_models where model_name = '" ~ model.identifier ~ "'"
        ) -%}
        {%- if rows | length -%}
            {{- return({'model_version': rows[0][0], 'features': fromjson(rows[0][1])}) -}}
        {%- endif -%}
    {%- endif -%}
    {{- return(none) -}}
{% endmacro %}


{# The version of a model, a scalar. BigQuery ML keeps none: there it is the time to which the model learned. #}
{% macro ml_model_version(model, dataset) %}
    {{- return(adapter.dispatch('ml_model_version', 'tapehouse')(model, dataset)) -}}
{% endmacro %}

{% macro default__ml_model_version(model, dataset) %}(select model_version from {{ model }}){% endmacro %}

{% macro bigquery__ml_model_version(model, dataset) -%}
    (select format_timestamp('%Y%m%dT%H%M%S', max(label_end_at)) from {{ dataset }} where split = 'train')
{%- endmacro %}


{# When the last label of the training part was decided, a scalar: what closed earlier is in-sample. #}
{% macro ml_train_end_at(model, dataset) %}
    {{- return(adapter.dispatch('ml_train_end_at', 'tapehouse')(model, dataset)) -}}
{% endmacro %}

{% macro default__ml_train_end_at(model, dataset) %}(select train_end_at from {{ model }}){% endmacro %}

{% macro bigquery__ml_train_end_at(model, dataset) -%}
    (select max(label_end_at) from {{ dataset }} where split = 'train')
{%- endmacro %}


{# When the last label of the validation part was decided, a scalar: what closed earlier chose the model or its threshold. #}
{% macro ml_validation_end_at(model, dataset) %}
    {{- return(adapter.dispatch('ml_validation_end_at', 'tapehouse')(model, dataset)) -}}
{% endmacro %}

{% macro default__ml_validation_end_at(model, dataset) %}(select validation_end_at from {{ model }}){% endmacro %}

{% macro bigquery__ml_validation_end_at(model, dataset) -%}
    (select max(label_end_at) from {{ dataset }} where split = 'validation')
{%- endmacro %}
