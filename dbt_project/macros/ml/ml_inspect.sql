{# ML.TRAINING_INFO: one row per iteration. #}
{% macro ml_training_info(model) %}{{ return(adapter.dispatch('ml_training_info', 'tapehouse')(model)) }}{% endmacro %}

{% macro default__ml_training_info(model) -%}
    select training_run, iteration, loss, eval_loss, learning_rate, duration_ms
    from registry.training_info
    where model_name = '{{ model.identifier }}' and model_version = (select model_version from {{ model }})
{%- endmacro %}

{% macro bigquery__ml_training_info(model) %}select * from ml.training_info(model {{ model }}){% endmacro %}


{# ML.FEATURE_IMPORTANCE: one row per feature; splits, mean gain and mean cover, as XGBoost counts them. #}
{% macro ml_feature_importance(model) %}{{ return(adapter.dispatch('ml_feature_importance', 'tapehouse')(model)) }}{% endmacro %}

{% macro default__ml_feature_importance(model) -%}
    select feature, importance_weight, importance_gain, importance_cover
    from registry.feature_importance
    where model_name = '{{ model.identifier }}' and model_version = (select model_version from {{ model }})
{%- endmacro %}

{% macro bigquery__ml_feature_importance(model) %}select * from ml.feature_importance(model {{ model }}){% endmacro %}
