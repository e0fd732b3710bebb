{# ML.EVALUATE over a query with the label, one row: precision, recall, accuracy, f1_score, log_loss and roc_auc of a classifier, each the mean
   over the classes where there are more than two, except accuracy and log_loss; mean_absolute_error, mean_squared_error,
   mean_squared_log_error, median_absolute_error, r2_score and explained_variance of a regression. #}
{% macro ml_evaluate(model, query) %}{{ return(adapter.dispatch('ml_evaluate', 'tapehouse')(model, query)) }}{% endmacro %}

{% macro default__ml_evaluate(model, query) -%}
    {%- set task = ml_active_version(model)['task'] -%}
    {%- if task == 'regression' -%}{{ regression_metrics(ml_judged_values(model, query)) }}
    {%- elif task == 'binary' -%}{{ classification_metrics(ml_judged(model, query)) }}
    {%- else -%}{{ multiclass_metrics(ml_judged_classes(model, query)) }}
    {%- endif -%}
{%- endmacro %}

{% macro bigquery__ml_evaluate(model, query) -%}
    {%- if ml_imported(model) -%}{{ default__ml_evaluate(model, query) }}
    {%- elif ml_task(model) == 'regression' -%}
        select
            mean_absolute_error,
            mean_squared_error,
            mean_squared_log_error,
            median_absolute_error,
            r2_score,
            explained_variance
        from ml.evaluate(model {{ model }}, ({{ query }}))
    {%- else -%}
        select
            precision,
            recall,
            accuracy,
            f1_score,
            log_loss,
            roc_auc
        from ml.evaluate(model {{ model }}, ({{ query }}))
    {%- endif -%}
{%- endmacro %}


{# ML.ROC_CURVE over a query with the label, of two classes: one row per threshold, descending in recall. #}
{% macro ml_roc_curve(model, query) %}{{ return(adapter.dispatch('ml_roc_curve', 'tapehouse')(model, query)) }}{% endmacro %}

{% macro default__ml_roc_curve(model, query) -%}
    select
        probability as threshold,
        {{ safe_divide('true_positives', 'true_positives + false_negatives') }} as recall,
        {{ safe_divide('false_positives', 'false_positives + true_negatives') }} as false_positive_rate,
        true_positives,
        false_positives,
        true_negatives,
        false_negatives
    from (
        select
            probability,
            sum(positives) over at_least as true_positives,
            sum(negatives) over at_least as false_positives,
            sum(negatives) over () - sum(negatives) over at_least as true_negatives,
            sum(positives) over () - sum(positives) over at_least as false_negatives
        from (
            select
                probability,
                sum(case when is_true then 1 else 0 end) as positives,
                sum(case when is_true then 0 else 1 end) as negatives
            from ({{ ml_judged(model, query) }}) as judged
            group by probability
        ) as levels
        window at_least as (order by probability desc rows between unbounded preceding and current row)
    ) as counted
{%- endmacro %}

{% macro bigquery__ml_roc_curve(model, query) -%}
    {%- if ml_imported(model) -%}{{ default__ml_roc_curve(model, query) }}
    {%- else -%}
        select
            threshold,
            recall,
            false_positive_rate,
            true_positives,
            false_positives,
            true_negatives,
            false_negatives
        from ml.roc_curve(model {{ model }}, ({{ query }}))
    {%- endif -%}
{%- endmacro %}


{# ML.CONFUSION_MATRIX over a query with the label: one row per expected label, one column per predicted label. #}
{% macro ml_confusion_matrix(model, query) %}
    {{- return(adapter.dispatch('ml_confusion_matrix', 'tapehouse')(model, query)) -}}
{% endmacro %}

{% macro default__ml_confusion_matrix(model, query) -%}
    {%- set active = ml_active_version(model) -%}
    select
        {{ active['label'] }} as expected_label,
        {%- for name in active['classes'] %}
        sum(case when predicted_{{ active['label'] }} = {{ ml_literal(name, active['classes']) }} then 1 else 0 end)
            as {{ ml_column(name) }}{{ ',' if not loop.last }}
        {%- endfor %}
    from ({{ ml_predict(model, query) }}) as predicted
    where {{ active['label'] }} is not null
    group by {{ active['label'] }}
{%- endmacro %}

{% macro bigquery__ml_confusion_matrix(model, query) -%}
    {%- if ml_imported(model) -%}{{ default__ml_confusion_matrix(model, query) }}
    {%- else -%}select {{ ml_without_trial(model, 'ml.confusion_matrix(model ' ~ model ~ ', (' ~ query ~ '))') }}
    {%- endif -%}
{%- endmacro %}


{# A label as the name of a column, as BigQuery ML makes it: what is no letter, digit or underscore becomes one, and none starts with a digit. #}
{% macro ml_column(name) -%}
    {%- set column = modules.re.sub('[^0-9A-Za-z_]', '_', name | string) -%}
    {{ adapter.quote('_' ~ column if column[0] in '0123456789' else column) }}
{%- endmacro %}


{# The labelled rows of a query as is_true and probability; of two classes the second is true. #}
{% macro ml_judged(model, query) -%}
    {%- set active = ml_active_version(model) -%}
    {%- set second = ml_literal(active['classes'][1], active['classes']) -%}
    select
        {{ active['label'] }} = {{ second }} as is_true,
        {{ ml_probability('predicted_' ~ active['label'] ~ '_probs', second) }} as probability
    from ({{ ml_predict(model, query) }}) as predicted
    where {{ active['label'] }} is not null
{%- endmacro %}


{# The labelled rows of a query, each once per class: row_number, class_name, is_true, is_predicted and probability. #}
{% macro ml_judged_classes(model, query) -%}
    {%- set active = ml_active_version(model) -%}
    {%- set label = active['label'] -%}
    {%- for name in active['classes'] %}
    {%- set literal = ml_literal(name, active['classes']) %}
    select
        '{{ name }}' as class_name,
        {{ label }} = {{ literal }} as is_true,
        predicted_{{ label }} = {{ literal }} as is_predicted,
        {{ ml_probability('predicted_' ~ label ~ '_probs', literal) }} as probability
    from ({{ ml_predict(model, query) }}) as predicted
    where {{ label }} is not null
    {{ 'union all' if not loop.last }}
    {%- endfor %}
{%- endmacro %}


{# The labelled rows of a query as expected and predicted. #}
{% macro ml_judged_values(model, query) -%}
    {%- set label = ml_active_version(model)['label'] -%}
    select
        cast({{ label }} as {{ type_float64() }}) as expected,
        predicted_{{ label }} as predicted
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
            {{ mid_rank('probability', groups) }} as mid_rank
        from ({{ query }}) as judged
    ) as ranked
    {{ 'group by ' ~ groups if groups }}
{%- endmacro %}


{# The same of the rows of a query with class_name, is_true, is_predicted and probability, of more than two classes: means over the classes
   that occur, as BigQuery ML and scikit-learn's 'macro' take them. #}
{% macro multiclass_metrics(query) -%}
    select
        avg(precision) as precision,
        avg(recall) as recall,
        sum(true_positives) / sum(row_count) as accuracy,
        avg(f1_score) as f1_score,
        sum(loss) / sum(row_count) as log_loss,
        avg(roc_auc) as roc_auc
    from (
        select
            class_name,
            coalesce({{ safe_divide('1e0 * sum(true_positive)', 'sum(is_guess)') }}, 0) as precision,
            coalesce({{ safe_divide('1e0 * sum(true_positive)', 'sum(is_positive)') }}, 0) as recall,
            coalesce({{ safe_divide('2e0 * sum(true_positive)', 'sum(is_guess) + sum(is_positive)') }}, 0) as f1_score,
            sum(true_positive) as true_positives,
            sum(is_positive) as row_count,
            sum(case when is_positive = 1 then loss else 0 end) as loss,
            {{ safe_divide(
                'sum(is_positive * mid_rank) - sum(is_positive) * (sum(is_positive) + 1) / 2e0',
                'sum(is_positive) * sum(1 - is_positive)'
            ) }} as roc_auc
        from (
            select
                class_name,
                case when is_true then 1 else 0 end as is_positive,
                case when is_predicted then 1 else 0 end as is_guess,
                case when is_true and is_predicted then 1 else 0 end as true_positive,
                -ln(greatest(probability, 1e-15)) as loss,
                {{ mid_rank('probability', 'class_name') }} as mid_rank
            from ({{ query }}) as judged
        ) as ranked
        group by class_name
        having sum(is_positive) + sum(is_guess) > 0
    ) as by_class
{%- endmacro %}


{# Metrics of the rows of a query with expected and predicted values. mean_squared_log_error is NULL where a value is not above -1. #}
{% macro regression_metrics(query) -%}
    select
        avg(abs(error)) as mean_absolute_error,
        avg(power(error, 2)) as mean_squared_error,
        case when min(least(expected, predicted)) > -1 then avg(squared_log_error) end as mean_squared_log_error,
        avg(case when place in (floor((row_count + 1) / 2e0), ceil((row_count + 1) / 2e0)) then abs(error) end) as median_absolute_error,
        1 - {{ safe_divide('avg(power(error, 2))', 'var_pop(expected)') }} as r2_score,
        1 - {{ safe_divide('var_pop(error)', 'var_pop(expected)') }} as explained_variance
    from (
        select
            expected,
            predicted,
            expected - predicted as error,
            case
                when least(expected, predicted) > -1
                    then power(ln(1 + greatest(expected, -1 + 1e-300)) - ln(1 + greatest(predicted, -1 + 1e-300)), 2)
            end as squared_log_error,
            row_number() over (order by abs(expected - predicted)) as place,
            count(*) over () as row_count
        from ({{ query }}) as judged
    ) as errors
{%- endmacro %}


{# The rank of a column's value from below, the mean of their ranks for equal values. #}
{% macro mid_rank(column, partition) -%}
    rank() over ({{ 'partition by ' ~ partition if partition }} order by {{ column }})
    + (count(*) over (partition by {{ partition ~ ', ' if partition }}{{ groupable(column) }}) - 1) / 2e0
{%- endmacro %}
