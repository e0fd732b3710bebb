{# ML.EVALUATE over a query with the label: one row of precision, recall, accuracy, f1_score, log_loss and roc_auc. #}
{% macro ml_evaluate(model, query) %}{{ return(adapter.dispatch('ml_evaluate', 'tapehouse')(model, query)) }}{% endmacro %}

{% macro default__ml_evaluate(model, query) -%}
    {{ classification_metrics(ml_judged(model, query)) }}
{%- endmacro %}

{% macro bigquery__ml_evaluate(model, query) -%}
    select * from ml.evaluate(model {{ model }}, ({{ query }}))
{%- endmacro %}


{# ML.ROC_CURVE over a query with the label: one row per threshold, descending in recall. #}
{% macro ml_roc_curve(model, query) %}{{ return(adapter.dispatch('ml_roc_curve', 'tapehouse')(model, query)) }}{% endmacro %}

{% macro default__ml_roc_curve(model, query) -%}
    select
        probability as threshold,
        true_positives / nullif(true_positives + false_negatives, 0) as recall,
        false_positives / nullif(false_positives + true_negatives, 0) as false_positive_rate,
        true_positives,
        false_positives,
        true_negatives,
        false_negatives
    from (
        select
            probability,
            sum(sum(case when is_true then 1 else 0 end)) over at_least as true_positives,
            sum(sum(case when is_true then 0 else 1 end)) over at_least as false_positives,
            sum(sum(case when is_true then 0 else 1 end)) over () - sum(sum(case when is_true then 0 else 1 end)) over at_least as true_negatives,
            sum(sum(case when is_true then 1 else 0 end)) over () - sum(sum(case when is_true then 1 else 0 end)) over at_least as false_negatives
        from ({{ ml_judged(model, query) }}) as judged
        group by probability
        window at_least as (order by probability desc)
    ) as counted
{%- endmacro %}

{% macro bigquery__ml_roc_curve(model, query) -%}
    select * from ml.roc_curve(model {{ model }}, ({{ query }}))
{%- endmacro %}


{# ML.CONFUSION_MATRIX over a query with the label: one row per expected label, one column per predicted label. #}
{% macro ml_confusion_matrix(model, query) %}
    {{- return(adapter.dispatch('ml_confusion_matrix', 'tapehouse')(model, query)) -}}
{% endmacro %}

{% macro default__ml_confusion_matrix(model, query) -%}
    select
        is_true as expected_label,
        sum(case when probability > 0.5 then 0 else 1 end) as "false",
        sum(case when probability > 0.5 then 1 else 0 end) as "true"
    from ({{ ml_judged(model, query) }}) as judged
    group by is_true
{%- endmacro %}

{% macro bigquery__ml_confusion_matrix(model, query) -%}
    select * from ml.confusion_matrix(model {{ model }}, ({{ query }}))
{%- endmacro %}


{# The labelled rows of a query as is_true and probability. #}
{% macro ml_judged(model, query) -%}
    {%- set label = ml_label(model) -%}
    select
        {{ label }} as is_true,
        {{ ml_probability('predicted_' ~ label ~ '_probs', 'true') }} as probability
    from ({{ ml_predict(model, query) }}) as predicted
    where {{ label }} is not null
{%- endmacro %}


{# Metrics of the rows of a query with is_true and probability, for each group; works on both engines, for imported models too. #}
{% macro classification_metrics(query, group_by=[]) -%}
    {%- set groups = group_by | join(', ') -%}
    select
        {{ groups ~ ',' if groups }}
        {{ safe_divide('sum(true_positive)', 'sum(true_positive + false_positive)') }} as precision,
        {{ safe_divide('sum(true_positive)', 'sum(true_positive + false_negative)') }} as recall,
        avg(1 - false_positive - false_negative) as accuracy,
        {{ safe_divide('2 * sum(true_positive)', 'sum(2 * true_positive + false_positive + false_negative)') }} as f1_score,
        avg(loss) as log_loss,
        {{ safe_divide(
            'sum(is_positive * mid_rank) - sum(is_positive) * (sum(is_positive) + 1) / 2',
            'sum(is_positive) * sum(1 - is_positive)'
        ) }} as roc_auc
    from (
        select
            {{ groups ~ ',' if groups }}
            case when is_true then 1 else 0 end as is_positive,
            case when is_true and probability > 5e-1 then 1 else 0 end as true_positive,
            case when not is_true and probability > 5e-1 then 1 else 0 end as false_positive,
            case when is_true and probability <= 5e-1 then 1 else 0 end as false_negative,
            -ln(greatest(case when is_true then probability else 1 - probability end, 1e-15)) as loss,
            rank() over ({{ 'partition by ' ~ groups if groups }} order by probability)
            + (count(*) over (partition by {{ groups ~ ', ' if groups }}probability) - 1) / 2 as mid_rank
        from ({{ query }}) as judged
    ) as ranked
    {{ 'group by ' ~ groups if groups }}
{%- endmacro %}
