{# ML.PREDICT over a query: predicted_<label>, predicted_<label>_probs (an array of label and prob, the likelier first; not for a regression)
   and the query's columns.

   On DuckDB the features and their order are the registry's at the time the node runs. On BigQuery a model that was imported as ONNX says in
   its configuration which columns its tensor takes and which labels its probabilities belong to: `imported={'features': […], 'classes': […]}`,
   no classes for a regression; the macro then gives the same columns as for a model that was trained there. #}
{% macro ml_predict(model, query) %}{{ return(adapter.dispatch('ml_predict', 'tapehouse')(model, query)) }}{% endmacro %}

{% macro default__ml_predict(model, query) -%}
    {%- set active = ml_active_version(model) -%}
    {%- set label = active['label'] -%}
    {%- set tensor -%}
        '{{ active["model_version"] }}', [{{ active["features"] | map('tojson') | join(', ') }}]::float[]
    {%- endset -%}
    select
        {% if not active['features'] -%}
            {%- if active['task'] != 'regression' -%}
                cast(null as boolean) as predicted_{{ label }},
                cast(null as struct(label boolean, prob double)[]) as predicted_{{ label }}_probs,
            {%- else -%}
                cast(null as double) as predicted_{{ label }},
            {%- endif %}
        * from ({{ query }}) where false
        {%- elif active['task'] == 'regression' -%}
            tapehouse_predict({{ tensor }}) as predicted_{{ label }},
            *
        from ({{ query }})
        {%- else -%}
            predicted_{{ label }}_probs[1].label as predicted_{{ label }},
            *
        from (
            select
                {{ ml_labelled_probabilities(active, tensor) }} as predicted_{{ label }}_probs,
                *
            from ({{ query }})
        )
        {%- endif %}
{%- endmacro %}

{% macro bigquery__ml_predict(model, query) -%}
    {%- set imported = ml_imported(model) -%}
    {%- if not imported -%}
        select {{ ml_without_trial(model, 'ml.predict(model ' ~ model ~ ', (' ~ query ~ '))') }}
    {%- else -%}
        {%- set label = ml_label(model) -%}
        {%- set tensor -%}
            select
                *,
                [
                    {%- for feature in imported['features'] %}
                    ifnull(cast({{ feature }} as float64), cast('nan' as float64)){{ ',' if not loop.last }}
                    {%- endfor %}
                ] as features
            from ({{ query }})
        {%- endset -%}
        {%- if not imported.get('classes') -%}
            select
                prediction as predicted_{{ label }},
                * except (prediction, features)
            from ml.predict(model {{ model }}, ({{ tensor }}))
        {%- else -%}
            select
                predicted_{{ label }}_probs[safe_offset(0)].label as predicted_{{ label }},
                *
            from (
                select
                    array(
                        select as struct
                            label,
                            probabilities[safe_offset(place)] as prob
                        from unnest([{{ ml_literals(imported['classes']) }}]) as label with offset as place
                        order by prob desc, place
                    ) as predicted_{{ label }}_probs,
                    * except (label, probabilities, features)
                from ml.predict(model {{ model }}, ({{ tensor }}))
            )
        {%- endif -%}
    {%- endif -%}
{%- endmacro %}


{# The columns and the FROM of what BigQuery ML says of the best trial of a model, less `trial_id`, which it may add for a model with a search. The
   column beside it is there so that there is one to leave out. #}
{% macro ml_without_trial(model, call) -%}
    {%- if ml_option(model, 'num_trials', none) -%}
        * except (trial_id) from (select 0 as trial_id) as no_trial_ cross join {{ call }}
    {%- else -%}
        * from {{ call }}
    {%- endif -%}
{%- endmacro %}


{# The array of labels and probabilities of a row on DuckDB, the likelier first. #}
{% macro ml_labelled_probabilities(active, tensor) -%}
    list_transform(
        list_sort(
            list_transform(
                list_zip(
                    tapehouse_probabilities({{ tensor }}),
                    [{{ ml_literals(active['classes']) }}],
                    range({{ active['classes'] | length }})
                ),
                lambda class: {'prob': class[1], 'place': -class[3], 'label': class[2]}
            ), 'desc'
        ), lambda candidate: {'label': candidate.label, 'prob': candidate.prob}
    )
{%- endmacro %}


{# One label of several as a literal. #}
{% macro ml_literal(name, classes) -%}
    {%- for other in classes if not modules.re.fullmatch('true|false|-?[0-9]+', other | string | lower) -%}
        {{- return(dbt.string_literal(dbt.escape_single_quotes(name | string))) -}}
    {%- endfor -%}
    {{- return(name | string | lower) -}}
{%- endmacro %}


{# The labels of classes as literals: booleans, whole numbers or strings. #}
{% macro ml_literals(classes) -%}
    {%- for name in classes -%}
        {{ ml_literal(name, classes) }}{{ ', ' if not loop.last }}
    {%- endfor -%}
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


{# What is known of the ONNX file that a model is on BigQuery: path, features, classes and more, as `tapehouse models export` prints it. From the
   variable `imported_models` or the model's configuration; none of a model that BigQuery trains. In a unit test a model is rows under its name. #}
{% macro ml_imported(model) %}
    {{- return((var('imported_models') or {}).get(model.identifier | replace('__dbt__cte__', '')) or ml_option(model, 'imported', none)) -}}
{% endmacro %}


{# The label column of a model, from its configuration. #}
{% macro ml_label(model) %}{{ return(ml_option(model, 'input_label_cols', ['label'])[0]) }}{% endmacro %}


{# What the registry says of a model's active version: model_version, features, label, task and classes. Before it is trained there are no
   features, and the task is that of its type; the same while dbt compiles without a connection. On BigQuery the configuration says it. #}
{% macro ml_active_version(model) %}{{ return(adapter.dispatch('ml_active_version', 'tapehouse')(model)) }}{% endmacro %}

{% macro default__ml_active_version(model) %}
    {%- if execute and flags.INTROSPECT -%}
        {%- set rows = run_query(
            "select model_version, to_json(features)::varchar, label, task, coalesce(to_json(classes)::varchar, '[]') from registry.active_models "
            ~ "where model_name = '" ~ model.identifier ~ "'"
        ) -%}
        {%- if rows | length -%}
            {{- return({
                'model_version': rows[0][0], 'features': fromjson(rows[0][1]), 'label': rows[0][2], 'task': rows[0][3],
                'classes': fromjson(rows[0][4]),
            }) -}}
        {%- endif -%}
    {%- endif -%}
    {%- set untrained = bigquery__ml_active_version(model) -%}
    {%- do untrained.update({'model_version': none, 'features': []}) -%}
    {{- return(untrained) -}}
{% endmacro %}

{% macro bigquery__ml_active_version(model) %}
    {%- set imported = ml_imported(model) or {} -%}
    {{- return({
        'model_version': imported.get('version'), 'features': imported.get('features', []), 'label': ml_label(model), 'task': ml_task(model),
        'classes': ml_classes(model),
    }) -}}
{% endmacro %}


{# What a model learns, by its type and its option `classes`: 'binary', 'multiclass' or 'regression'. #}
{% macro ml_task(model) -%}
    {%- set type = ml_option(model, 'model_type', 'LOGISTIC_REG') | upper -%}
    {%- if type.endswith('REGRESSOR') or type == 'LINEAR_REG' -%}{{ return('regression') }}{%- endif -%}
    {{ return('multiclass' if ml_classes(model) | length > 2 else 'binary') }}
{%- endmacro %}


{# The labels of a model's classes, of which its configuration says (`classes`, or in `imported`) where the registry does not. #}
{% macro ml_classes(model) -%}
    {%- set imported = ml_imported(model) or {} -%}
    {{ return(imported.get('classes') or ml_option(model, 'classes', ['false', 'true'])) }}
{%- endmacro %}


{# The version of a model, a scalar. #}
{% macro ml_model_version(model) %}{{ return(adapter.dispatch('ml_model_version', 'tapehouse')(model)) }}{% endmacro %}

{% macro default__ml_model_version(model) %}(select model_version from {{ model }}){% endmacro %}

{% macro bigquery__ml_model_version(model) -%}
    {%- set version = ml_trained(model).get('model_version') -%}
    {{ dbt.string_literal(version) if version else 'cast(null as string)' }}
{%- endmacro %}


{# The same as a value, none before the model is trained. #}
{% macro ml_present_version(model) %}{{ return(adapter.dispatch('ml_present_version', 'tapehouse')(model)) }}{% endmacro %}

{% macro default__ml_present_version(model) %}{{ return(ml_active_version(model)['model_version']) }}{% endmacro %}

{% macro bigquery__ml_present_version(model) %}{{ return(ml_trained(model).get('model_version')) }}{% endmacro %}


{# When the last label of the training part was decided, a scalar: what closed earlier is in-sample. #}
{% macro ml_train_end_at(model) %}{{ return(adapter.dispatch('ml_train_end_at', 'tapehouse')(model)) }}{% endmacro %}

{% macro default__ml_train_end_at(model) %}(select train_end_at from {{ model }}){% endmacro %}

{% macro bigquery__ml_train_end_at(model) %}{{ ml_instant(ml_trained(model).get('train_end_at')) }}{% endmacro %}


{# When the last label of the validation part was decided, a scalar: what closed earlier chose the model or its threshold. #}
{% macro ml_validation_end_at(model) %}{{ return(adapter.dispatch('ml_validation_end_at', 'tapehouse')(model)) }}{% endmacro %}

{% macro default__ml_validation_end_at(model) %}(select validation_end_at from {{ model }}){% endmacro %}

{% macro bigquery__ml_validation_end_at(model) %}{{ ml_instant(ml_trained(model).get('validation_end_at')) }}{% endmacro %}


{# The version of a model with the ends of its training and validation parts: model_version, train_end_at, validation_end_at. Joining
   predictions with it on `closed_at >= validation_end_at` refuses those that the model or its threshold was chosen by. #}
{% macro ml_known(model) -%}
    select
        {{ ml_model_version(model) }} as model_version,
        {{ ml_train_end_at(model) }} as train_end_at,
        {{ ml_validation_end_at(model) }} as validation_end_at
{%- endmacro %}


{# Every version of a model with the ends of its training and validation parts, out of the registry; of an imported model on BigQuery the
   present one. #}
{% macro ml_versions(model) %}{{ return(adapter.dispatch('ml_versions', 'tapehouse')(model)) }}{% endmacro %}

{% macro default__ml_versions(model) -%}
    select
        model_version,
        max(train_end_at) as train_end_at,
        max(validation_end_at) as validation_end_at
    from registry.models
    where model_name = '{{ model.identifier }}'
    group by model_version
{%- endmacro %}

{% macro bigquery__ml_versions(model) -%}
    {%- if ml_imported(model) or not flags.INTROSPECT -%}{{ ml_known(model) }}
    {%- else -%}
        select
            model_version,
            train_end_at,
            validation_end_at
        from {{ bookkeeping('trained_models') }}
        where model_name = '{{ model.identifier }}' and model_version is not null
    {%- endif -%}
{%- endmacro %}


{# How many models were tried, as the registry counts them: every trial of every search, baselines left out. BigQuery ML keeps no
   history: there it is what was counted when the model was exported, or NUM_TRIALS of one that was trained there. #}
{% macro ml_trial_count(model) %}{{ return(adapter.dispatch('ml_trial_count', 'tapehouse')(model)) }}{% endmacro %}

{% macro default__ml_trial_count(model) -%}
    (
        select count(*)
        from registry.trials as trials
        where exists (
            select 1
            from registry.models as models
            where
                models.model_name = trials.model_name
                and models.model_version = trials.model_version
                and models.role <> 'baseline'
        )
    )
{%- endmacro %}

{% macro bigquery__ml_trial_count(model) %}
    {{- (ml_imported(model) or {}).get('trial_count') or ml_option(model, 'num_trials', 1) -}}
{% endmacro %}


{# What a model said of bars that it had not learned from, by its key columns and `prediction`, the probability that the label is true: that of
   the models of its walk-forward folds out of the registry. BigQuery ML has no folds: there it is what its only model said after its training. #}
{% macro ml_out_of_fold(model, predictions) %}{{ return(adapter.dispatch('ml_out_of_fold', 'tapehouse')(model, predictions)) }}{% endmacro %}

{% macro default__ml_out_of_fold(model, predictions) -%}
    select
        exchange,
        market,
        symbol,
        interval_minutes,
        opened_at,
        prediction
    from registry.out_of_fold
    where model_name = '{{ model.identifier }}' and model_version = (select model_version from {{ model }})
{%- endmacro %}

{% macro bigquery__ml_out_of_fold(model, predictions) -%}
    select
        exchange,
        market,
        symbol,
        interval_minutes,
        opened_at,
        probability as prediction
    from {{ predictions }}
    where model_name = '{{ model.identifier }}'
    qualify row_number() over (
        partition by exchange, market, symbol, interval_minutes, opened_at order by predicted_at desc
    ) = 1
{%- endmacro %}
