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


{# What a model's configuration says of an option, or the default; the default too while dbt parses. #}
{% macro ml_option(model, option, default) %}
    {%- set found = namespace(value=default) -%}
    {%- if execute -%}
        {%- for node in graph.nodes.values() if node.resource_type == 'model' and node.alias == model.identifier -%}
            {%- set found.value = node.config.get(option, default) -%}
        {%- endfor -%}
    {%- endif -%}
    {{- return(found.value) -}}
{% endmacro %}


{# The label column of a model, from its configuration. #}
{% macro ml_label(model) %}{{ return(ml_option(model, 'input_label_cols', ['label'])[0]) }}{% endmacro %}


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


{# The version of a model with the ends of its training and validation parts: model_version, train_end_at, validation_end_at. Joining
   predictions with it on `closed_at >= validation_end_at` refuses those that the model or its threshold was chosen by. #}
{% macro ml_known(model, dataset) -%}
    select
        {{ ml_model_version(model, dataset) }} as model_version,
        {{ ml_train_end_at(model, dataset) }} as train_end_at,
        {{ ml_validation_end_at(model, dataset) }} as validation_end_at
{%- endmacro %}


{# Every version of a model with the ends of its training and validation parts, out of the registry; on BigQuery only the present one. #}
{% macro ml_versions(model, dataset) %}{{ return(adapter.dispatch('ml_versions', 'tapehouse')(model, dataset)) }}{% endmacro %}

{% macro default__ml_versions(model, dataset) -%}
    select
        model_version,
        max(train_end_at) as train_end_at,
        max(validation_end_at) as validation_end_at
    from registry.models
    where model_name = '{{ model.identifier }}'
    group by model_version
{%- endmacro %}

{% macro bigquery__ml_versions(model, dataset) %}{{ ml_known(model, dataset) }}{% endmacro %}


{# How many models were tried, as the registry counts them: every trial of every search, baselines left out. BigQuery ML keeps no
   history: there it is NUM_TRIALS of one model. #}
{% macro ml_trial_count(model) %}{{ return(adapter.dispatch('ml_trial_count', 'tapehouse')(model)) }}{% endmacro %}

{% macro default__ml_trial_count(model) -%}
    (select count(*) from registry.models where role <> 'baseline')
{%- endmacro %}

{% macro bigquery__ml_trial_count(model) %}{{ ml_option(model, 'num_trials', 1) }}{% endmacro %}
