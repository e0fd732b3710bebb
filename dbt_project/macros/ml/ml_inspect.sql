{# ML.TRAINING_INFO: one row per iteration. #}
{% macro ml_training_info(model) %}{{ return(adapter.dispatch('ml_training_info', 'tapehouse')(model)) }}{% endmacro %}

{% macro default__ml_training_info(model) -%}
    {{ ml_recorded(model, 'training_info', 'training_run, iteration, loss, eval_loss, learning_rate, duration_ms') }}
{%- endmacro %}

{% macro bigquery__ml_training_info(model) -%}
    {%- if ml_imported(model) -%}{{ default__ml_training_info(model) }}
    {%- else -%}
        select
            training_run,
            iteration,
            loss,
            eval_loss,
            learning_rate,
            duration_ms
        from ml.training_info(model {{ model }})
    {%- endif -%}
{%- endmacro %}


{# ML.TRIAL_INFO: one row per trial of the search for hyper-parameters. On DuckDB hyperparameters and metrics are JSON. #}
{% macro ml_trial_info(model) %}{{ return(adapter.dispatch('ml_trial_info', 'tapehouse')(model)) }}{% endmacro %}

{% macro default__ml_trial_info(model) -%}
    {{ ml_recorded(
        model, 'trials',
        'trial_id, hyperparameters, hparam_tuning_evaluation_metrics, training_loss, eval_loss, status, error_message, is_optimal'
    ) }}
{%- endmacro %}

{% macro bigquery__ml_trial_info(model) -%}
    {%- if ml_imported(model) -%}
        select
            trial_id,
            parse_json(hyperparameters) as hyperparameters,
            parse_json(hparam_tuning_evaluation_metrics) as hparam_tuning_evaluation_metrics,
            {{ all_except(['trial_id', 'hyperparameters', 'hparam_tuning_evaluation_metrics']) }}
        from ({{ default__ml_trial_info(model) }}) as trials_
    {%- else -%}select * from ml.trial_info(model {{ model }})
    {%- endif -%}
{%- endmacro %}


{# ML.FEATURE_INFO: one row per feature with what its training rows hold. #}
{% macro ml_feature_info(model) %}{{ return(adapter.dispatch('ml_feature_info', 'tapehouse')(model)) }}{% endmacro %}

{% macro default__ml_feature_info(model) -%}
    {{ ml_recorded(
        model, 'feature_info', 'input, min, max, mean, median, stddev, category_count, null_count, dimension'
    ) }}
{%- endmacro %}

{% macro bigquery__ml_feature_info(model) -%}
    {{ default__ml_feature_info(model) if ml_imported(model) else 'select * from ml.feature_info(model ' ~ model ~ ')' }}
{%- endmacro %}


{# ML.FEATURE_IMPORTANCE: one row per feature; splits, mean gain and mean cover, as XGBoost counts them. #}
{% macro ml_feature_importance(model) %}{{ return(adapter.dispatch('ml_feature_importance', 'tapehouse')(model)) }}{% endmacro %}

{% macro default__ml_feature_importance(model) -%}
    {{ ml_recorded(model, 'feature_importance', 'feature, importance_weight, importance_gain, importance_cover') }}
{%- endmacro %}

{% macro bigquery__ml_feature_importance(model) -%}
    {%- set type = ml_option(model, 'model_type', '') | upper -%}
    {%- if ml_imported(model) -%}{{ default__ml_feature_importance(model) }}
    {%- elif 'TREE' in type or 'FOREST' in type -%}
        select
            feature,
            importance_weight,
            importance_gain,
            importance_cover
        from ml.feature_importance(model {{ model }})
    {%- else -%}
        {#- BigQuery has the function for trees alone; elsewhere others have no rows. -#}
        select
            cast(null as string) as feature,
            cast(null as float64) as importance_weight,
            cast(null as float64) as importance_gain,
            cast(null as float64) as importance_cover
        from unnest(array<int64>[]) as none_
    {%- endif %}
{%- endmacro %}


{# ML.GLOBAL_EXPLAIN: the mean absolute attribution of each feature over the validation rows, or of each feature to each class. On BigQuery the
   model must have been trained with `enable_global_explain`. #}
{% macro ml_global_explain(model, class_level_explain=false) -%}
    {{ return(adapter.dispatch('ml_global_explain', 'tapehouse')(model, class_level_explain)) }}
{%- endmacro %}

{% macro default__ml_global_explain(model, class_level_explain) -%}
    {%- if class_level_explain -%}
        {{ ml_recorded(model, 'global_explanations', 'class_name, feature, attribution') }}
    {%- else -%}
        select
            feature,
            avg(attribution) as attribution
        from ({{ ml_recorded(model, 'global_explanations', 'feature, attribution') }}) as explained
        group by feature
    {%- endif -%}
{%- endmacro %}

{% macro bigquery__ml_global_explain(model, class_level_explain) -%}
    {%- if ml_imported(model) -%}{{ return(default__ml_global_explain(model, class_level_explain)) }}{%- endif -%}
    select
        {{ 'class_name,' if class_level_explain }}
        feature,
        attribution
    from ml.global_explain(model {{ model }}, struct({{ class_level_explain | lower }} as class_level_explain))
{%- endmacro %}


{# What a table of the registry holds of a model's active version; on BigQuery of an imported one, out of what `tapehouse models export` printed. #}
{% macro ml_recorded(model, table, columns) %}{{ return(adapter.dispatch('ml_recorded', 'tapehouse')(model, table, columns)) }}{% endmacro %}

{% macro default__ml_recorded(model, table, columns) -%}
    select {{ columns }}
    from registry.{{ table }}
    where model_name = '{{ model.identifier }}' and model_version = (select model_version from {{ model }})
{%- endmacro %}

{% macro bigquery__ml_recorded(model, table, columns) -%}
    {%- set types = {
        'training_info': {
            'training_run': 'int64', 'iteration': 'int64', 'loss': 'float64', 'eval_loss': 'float64', 'learning_rate': 'float64',
            'duration_ms': 'int64',
        },
        'trials': {
            'trial_id': 'int64', 'hyperparameters': 'string', 'hparam_tuning_evaluation_metrics': 'string', 'training_loss': 'float64',
            'eval_loss': 'float64', 'status': 'string', 'error_message': 'string', 'is_optimal': 'bool',
        },
        'feature_info': {
            'input': 'string', 'min': 'float64', 'max': 'float64', 'mean': 'float64', 'median': 'float64', 'stddev': 'float64',
            'category_count': 'int64', 'null_count': 'int64', 'dimension': 'int64',
        },
        'feature_importance': {'feature': 'string', 'importance_weight': 'float64', 'importance_gain': 'float64', 'importance_cover': 'float64'},
        'global_explanations': {'class_name': 'string', 'feature': 'string', 'attribution': 'float64'},
        'calibration': {'method': 'string', 'x': 'float64', 'y': 'float64'},
    } -%}
    {%- set fields = [] -%}
    {%- for name, type in types[table].items() -%}{%- do fields.append(name ~ ' ' ~ type) -%}{%- endfor -%}
    {%- set rows = [] -%}
    {%- for row in ml_known_rows(model, table) -%}
        {%- do rows.append('(' ~ tojson(row)[1:-1] ~ ')') -%}
    {%- endfor -%}
    select {{ columns }}
    from unnest(array<struct<{{ fields | join(', ') }}>>[{{ rows | join(', ') }}])
{%- endmacro %}


{# The rows of a table of the registry that came with an imported model. `--vars` is read as YAML, which takes JSON's 1e-07 for text. #}
{% macro ml_known_rows(model, table) %}
    {%- set imported = ml_imported(model) -%}
    {%- if table not in imported -%}
        {{- exceptions.raise_compiler_error(
            model.identifier ~ ' was imported without its ' ~ table ~ ': take what `tapehouse models export` prints'
        ) -}}
    {%- endif -%}
    {%- set rows = [] -%}
    {%- for row in imported[table] -%}
        {%- set values = [] -%}
        {%- for value in row -%}
            {%- set is_number = value is string and modules.re.fullmatch('-?[0-9.]+[eE][-+]?[0-9]+', value) -%}
            {%- do values.append(value | float if is_number else value) -%}
        {%- endfor -%}
        {%- do rows.append(values) -%}
    {%- endfor -%}
    {{- return(rows) -}}
{% endmacro %}
