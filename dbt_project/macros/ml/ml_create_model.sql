{# The statement that makes a model of BigQuery ML: CREATE MODEL of a type that is trained there, or the import of an ONNX file for a model
   of which `ml_imported` knows one. `config` is the node's, `sql` its compiled query.

   A setting that BigQuery ML has nothing for is refused rather than left out, as the model would be another one. Walk-forward folds are left
   out: they give predictions to judge by, not another model. #}
{% macro ml_create_model(relation, config, sql) -%}
    {%- set imported = ml_imported(relation) -%}
    {%- if imported -%}
        {{- ml_import_model(relation, imported) -}}
    {%- else -%}
        {{- ml_train_model(relation, config, sql) -}}
    {%- endif -%}
{%- endmacro %}


{% macro ml_train_model(relation, config, sql) -%}
    {%- set options = ml_bigquery_options(relation, config) -%}
    {%- set split = options['data_split_col'] -%}
    {%- set unlearned = [split, config.get('label_start_column'), config.get('label_end_column'), config.get('fold_column')] -%}
    {%- set unlearned = (unlearned + (config.get('key_columns') or [])) | select | unique | list -%}
    create or replace model {{ relation }}
    {{ ml_transform(config.get('transform') or {}, options) }}
    options (
        {%- for name, value in options.items() %}
        {{ name }} = {{ ml_option_value(name, value) }}{{ ',' if not loop.last }}
        {%- endfor %}
    )
    as
    select
        * except ({{ unlearned | join(', ') }}),
        {# BigQuery's custom split is a BOOL, true for the rows that evaluate; a search and AUTOML want names. #}
        {%- if options['model_type'].upper().startswith('AUTOML') %}
        if({{ split }} = 'train', 'TRAIN', 'VALIDATE') as {{ split }}
        {%- elif 'num_trials' in options %}
        if({{ split }} = 'train', 'TRAIN', 'EVAL') as {{ split }}
        {%- else %}
        {{ split }} = 'validation' as {{ split }}
        {%- endif %}
    from ({{ sql }})
    where {{ split }} in ('train', 'validation') and {{ options['input_label_cols'][0] }} is not null
{%- endmacro %}


{# A model out of an ONNX file in Cloud Storage. #}
{% macro ml_import_model(relation, imported) -%}
    {%- if not (imported.get('path') or '').startswith('gs://') -%}
        {{- exceptions.raise_compiler_error(
            relation.identifier ~ ': imported needs path, features and, of a classifier, classes; `tapehouse models export` gives them'
        ) -}}
    {%- endif -%}
    create or replace model {{ relation }}
    options (
        model_type = 'ONNX',
        model_path = '{{ imported['path'] }}'
    )
{%- endmacro %}


{# The options of CREATE MODEL on BigQuery out of a node's configuration, or an error that says what BigQuery ML has not. #}
{% macro ml_bigquery_options(relation, config) %}
    {%- set options = ml_options(config) -%}
    {%- set type = (options.get('model_type') or '') | upper -%}
    {%- set types = [
        'LOGISTIC_REG', 'LINEAR_REG', 'BOOSTED_TREE_CLASSIFIER', 'BOOSTED_TREE_REGRESSOR', 'RANDOM_FOREST_CLASSIFIER',
        'RANDOM_FOREST_REGRESSOR', 'DNN_CLASSIFIER', 'DNN_REGRESSOR', 'AUTOML_CLASSIFIER', 'AUTOML_REGRESSOR',
    ] -%}
    {%- set elsewhere = '; train it on DuckDB and import its ONNX file (docs/guides/bigquery-ml.md)' -%}
    {%- if type not in types -%}
        {{- exceptions.raise_compiler_error(
            relation.identifier ~ ': BigQuery ML trains no ' ~ (type or 'model without a model_type') ~ '; the types are ' ~ types | join(', ')
        ) -}}
    {%- endif -%}
    {%- if (options.get('data_split_method') or '') | upper != 'CUSTOM' or not options.get('data_split_col') or not options.get('input_label_cols') -%}
        {{- exceptions.raise_compiler_error(
            relation.identifier ~ ": input_label_cols, data_split_method='CUSTOM' and data_split_col are needed: other splits let overlapping labels leak"
        ) -}}
    {%- endif -%}
    {%- if config.get('engine') not in [none, 'xgboost'] and type.startswith('BOOSTED') -%}
        {{- exceptions.raise_compiler_error(relation.identifier ~ ': BigQuery ML has no engine ' ~ config['engine'] ~ ', only xgboost' ~ elsewhere) -}}
    {%- endif -%}
    {%- if options.get('min_tree_child_weight') is float -%}
        {%- if options['min_tree_child_weight'] != options['min_tree_child_weight'] | int -%}
            {{- exceptions.raise_compiler_error(relation.identifier ~ ": BigQuery's min_tree_child_weight is whole, not " ~ options['min_tree_child_weight']) -}}
        {%- endif -%}
        {%- do options.update({'min_tree_child_weight': options['min_tree_child_weight'] | int}) -%}
    {%- endif -%}
    {%- for name in ['weight_by_uniqueness', 'time_decay'] if config.get(name) -%}
        {{- exceptions.raise_compiler_error(relation.identifier ~ ': BigQuery ML has no ' ~ name ~ elsewhere) -}}
    {%- endfor -%}
    {%- if type.startswith('AUTOML') -%}
        {#- How many trials fit into the budget is BigQuery's choice, and its split has no method. -#}
        {%- set known = ['model_type', 'input_label_cols', 'data_split_col', 'budget_hours'] -%}
        {%- for name in options if name not in known + ['num_trials', 'data_split_method'] -%}
            {{- exceptions.raise_compiler_error(relation.identifier ~ ": BigQuery's AUTOML has no " ~ name ~ ', only ' ~ known | join(', ')) -}}
        {%- endfor -%}
        {%- do options.pop('data_split_method') -%}
        {%- do options.pop('num_trials', none) -%}
    {%- elif 'enable_global_explain' not in options -%}
        {#- ML.GLOBAL_EXPLAIN answers only for models that were trained with it. -#}
        {%- do options.update({'enable_global_explain': true}) -%}
    {%- endif -%}
    {{- return(options) -}}
{% endmacro %}


{# The value of an option as BigQuery writes it: HPARAM_ functions as they are, weights of classes as structs. #}
{% macro ml_option_value(name, value) -%}
    {%- if value is string and value.lower().startswith('hparam_') -%}
        {{ value }}
    {%- elif name == 'class_weights' -%}
        [
        {%- for label, weight in (value.items() if value is mapping else value) -%}
            struct({{ dbt.string_literal(label | string | lower if label is boolean else label | string) }}, {{ weight | float }}){{ ', ' if not loop.last }}
        {%- endfor -%}
        ]
    {%- else -%}
        {{ tojson(value) }}
    {%- endif -%}
{%- endmacro %}


{# BigQuery's TRANSFORM clause out of {column: 'ML.FUNCTION(arguments)'}. #}
{% macro ml_transform(transform, options) %}
    {%- if transform %}
        transform (
            * except ({{ transform | join(', ') }})
            {%- for column, call in transform.items() %}
                {%- if '*' in column -%}
                    {{- exceptions.raise_compiler_error("BigQuery's TRANSFORM names columns, not patterns: " ~ column) -}}
                {%- endif -%}
                {%- set function = call.split('(')[0].strip() -%}
                {%- set arguments = call.partition('(')[2].rpartition(')')[0].strip() -%}
                {%- set input = 'cast(' ~ column ~ ' as string)' if function.upper() == 'ML.ONE_HOT_ENCODER' else column -%}
                {%- set arguments = '[' ~ arguments ~ ']' if function.upper() == 'ML.BUCKETIZE' else arguments %},
            {{ function }}({{ input }}{{ ', ' ~ arguments if arguments }}){{ ' over ()' if function.upper() != 'ML.BUCKETIZE' }} as {{ column }}
            {%- endfor %}
        )
    {%- endif -%}
{% endmacro %}


{# `dbt run-operation ml_statements --target bigquery`: the statement that BigQuery gets of every model, or of those named, without a connection. #}
{% macro ml_statements(names=none) %}
    {%- set found = {} -%}
    {%- for node in graph.nodes.values() if node.config.materialized == 'ml_model' and (names is none or node.name in names) -%}
        {%- set relation = api.Relation.create(database=node.database, schema=node.schema, identifier=node.alias) -%}
        {%- do found.update({node.name: ml_create_model(relation, node.config, render(node.raw_code))}) -%}
    {%- endfor -%}
    {{- print(tojson(found)) -}}
{% endmacro %}
