{# ML.EXPLAIN_PREDICT over a query: predicted_<label>, probability (of the predicted label; not for a regression), top_feature_attributions
   (an array of feature and attribution, the largest first), baseline_prediction_value, prediction_value, approximation_error and the query's
   columns.

   Attributions are Shapley values in the unit of the score of the predicted label (log-odds, or the value of a regression): the baseline and
   all attributions add up to `prediction_value`, but for the approximation error of a network, relative to what the attributions add up to.
   BigQuery explains no imported model: there they are sampled, see ml_explain_sampled. #}
{% macro ml_explain_predict(model, query, top_k_features=5) -%}
    {{ return(adapter.dispatch('ml_explain_predict', 'tapehouse')(model, query, top_k_features)) }}
{%- endmacro %}

{% macro default__ml_explain_predict(model, query, top_k_features) -%}
    {%- set active = ml_active_version(model) -%}
    {%- set label = active['label'] -%}
    {%- set width = active['features'] | length + 2 -%}
    {%- set names = active['features'] | map('tojson') | join(', ') -%}
    {%- if not names -%}
        {{ exceptions.raise_compiler_error(model.identifier ~ ' is not trained yet: run `dbt build --select ' ~ model.identifier ~ '`') if execute and flags.INTROSPECT }}
    {%- endif -%}
    select
        predicted_{{ label }},
        {% if active['task'] != 'regression' -%}
            predicted_{{ label }}_probs[1].prob as probability,
        {% endif -%}
        {{ ml_top_attributions(active['features'], 'explanation_[:-3]', top_k_features) }} as top_feature_attributions,
        explanation_[-2] as baseline_prediction_value,
        explanation_[-1] as prediction_value,
        {{ safe_divide('abs(list_sum(explanation_[:-2]) - explanation_[-1])', 'abs(explanation_[-1] - explanation_[-2])') }}
            as approximation_error,
        * exclude (predicted_{{ label }}, explanation_, scores_ {{- ', predicted_' ~ label ~ '_probs' if active['task'] != 'regression' }})
    from (
        select
            *,
            {% if active['task'] == 'regression' -%}
                scores_ as explanation_
            {%- elif active['task'] == 'binary' -%}
                {# The attributions are those to the second label; to the first they are the opposite. #}
                case
                    when predicted_{{ label }} = {{ ml_literal(active['classes'][1], active['classes']) }} then scores_
                    else list_transform(scores_, lambda value: -value)
                end as explanation_
            {%- else -%}
                list_slice(
                    scores_,
                    {{ width }} * (list_position([{{ ml_literals(active['classes']) }}], predicted_{{ label }}) - 1) + 1,
                    {{ width }} * list_position([{{ ml_literals(active['classes']) }}], predicted_{{ label }})
                ) as explanation_
            {%- endif %}
        from (
            select
                *,
                tapehouse_explain('{{ active["model_version"] }}', [{{ names }}]::float[]) as scores_
            from ({{ ml_predict(model, query) }})
        )
    )
{%- endmacro %}

{% macro bigquery__ml_explain_predict(model, query, top_k_features) -%}
    {%- set imported = ml_imported(model) -%}
    {%- if imported -%}
        {%- set means = {} -%}
        {%- for row in ml_known_rows(model, 'feature_info') -%}{%- do means.update({row[0]: row[3]}) -%}{%- endfor -%}
        {%- set listed = [] -%}
        {%- for feature in imported['features'] -%}{%- do listed.append(means.get(feature)) -%}{%- endfor -%}
        {{- return(ml_explain_sampled(model, query, top_k_features, imported['features'], listed)) -}}
    {%- endif -%}
    {%- set call -%}
        ml.explain_predict(model {{ model }}, ({{ query }}), struct({{ top_k_features }} as top_k_features))
    {%- endset -%}
    select {{ ml_without_trial(model, call) }}
{%- endmacro %}
