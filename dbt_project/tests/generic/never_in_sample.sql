{# Predictions for bars that closed before the last label of their version's training part was decided. #}
{% test never_in_sample(model, trained) %}

select
    predictions.model_version,
    predictions.closed_at

from {{ model }} as predictions
inner join ({{ ml_versions(trained) }}) as versions
    on predictions.model_version = versions.model_version
    and predictions.closed_at < versions.train_end_at

{% endtest %}
