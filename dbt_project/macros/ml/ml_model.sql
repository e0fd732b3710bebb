{# Train a model in the warehouse: CREATE MODEL on BigQuery, the plugin's trainer on DuckDB.

   Options are BigQuery ML's own, written in config(); a value to search for is text, as 'HPARAM_RANGE(0.01, 0.3)'.
   The settings in ml_settings() are the project's: docs/guides/train-your-first-model.md tells what they do.

   On DuckDB the relation is a view of one row, the model's champion out of the registry. #}
{% materialization ml_model, adapter='duckdb' %}

    {%- set target_relation = this.incorporate(type='view') -%}
    {%- set existing_relation = load_cached_relation(this) -%}
    {%- set training = {'given': ml_options()} -%}
    {%- for name in ml_settings() if config.get(name) is not none -%}
        {%- do training.update({name: config.get(name)}) -%}
    {%- endfor -%}

    {{ run_hooks(pre_hooks, inside_transaction=False) }}
    {{ run_hooks(pre_hooks, inside_transaction=True) }}

    {% if existing_relation is not none and not existing_relation.is_view %}
        {% do adapter.drop_relation(existing_relation) %}
    {% endif %}

    {% if not flags.EMPTY %}
        {% call statement('training', fetch_result=True) %}
            select tapehouse_train({{ dbt.string_literal(dbt.escape_single_quotes(this.identifier)) }}, {{ dbt.string_literal(dbt.escape_single_quotes(compiled_code)) }}, {{ dbt.string_literal(dbt.escape_single_quotes(tojson(training))) }})
        {% endcall %}
        {% do log(ml_training_summary(this.identifier, fromjson(load_result('training')['data'][0][0])), info=True) %}
    {% endif %}

    {% call statement('main') %}
        create or replace view {{ target_relation }} as (
            select * from registry.active_models where model_name = '{{ this.identifier }}'
        )
    {% endcall %}

    {{ run_hooks(post_hooks, inside_transaction=True) }}
    {% do persist_docs(target_relation, model) %}
    {{ adapter.commit() }}
    {{ run_hooks(post_hooks, inside_transaction=False) }}

    {{ return({'relations': [target_relation]}) }}

{% endmaterialization %}


{% materialization ml_model, adapter='bigquery' %}

    {%- set options = ml_options() -%}
    {%- set is_automl = options['model_type'].upper().startswith('AUTOML') -%}
    {%- set split = options['data_split_col'] -%}
    {%- set unlearned = [split, config.get('label_start_column'), config.get('label_end_column'), config.get('fold_column')] -%}
    {%- set unlearned = (unlearned + (config.get('key_columns') or [])) | select | unique | list -%}

    {{ run_hooks(pre_hooks) }}

    {% call statement('main') %}
        create or replace model {{ this }}
        {{ ml_transform(config.get('transform') or {}, options) }}
        options (
            {%- for name, value in options.items() if not (is_automl and name in ['data_split_method', 'num_trials']) %}
            {{ name }} = {{ value if value is string and value.lower().startswith('hparam_') else tojson(value) }}{{ ',' if not loop.last }}
            {%- endfor %}
        )
        as
        select
            * except ({{ unlearned | join(', ') }}),
            {# BigQuery's custom split is a BOOL, true for the rows that evaluate; a search and AUTOML want names. #}
            {%- if is_automl %}
            if({{ split }} = 'train', 'TRAIN', 'VALIDATE') as {{ split }}
            {%- elif 'num_trials' in options %}
            if({{ split }} = 'train', 'TRAIN', 'EVAL') as {{ split }}
            {%- else %}
            {{ split }} = 'validation' as {{ split }}
            {%- endif %}
        from ({{ compiled_code }})
        where {{ split }} in ('train', 'validation') and {{ options['input_label_cols'][0] }} is not null
    {% endcall %}

    {{ run_hooks(post_hooks) }}

    {{ return({'relations': []}) }}

{% endmaterialization %}


{# What config() says of a model beside BigQuery ML's options. #}
{% macro ml_settings() %}
    {{- return([
        'role', 'seed', 'promotion', 'engine', 'transform', 'key_columns', 'label_start_column', 'label_end_column', 'fold_column',
        'walk_forward', 'embargo_minutes', 'weight_by_uniqueness', 'time_decay',
    ]) -}}
{% endmacro %}


{# The options of CREATE MODEL among a model's configuration. #}
{% macro ml_options() %}
    {%- set others = ml_settings() + [
        'access', 'alias', 'begin', 'column_types', 'concurrent_batches', 'contract', 'database', 'docs', 'enabled',
        'event_time', 'freshness', 'full_refresh', 'grants', 'group', 'incremental_strategy', 'lookback',
        'materialized', 'meta', 'on_configuration_change', 'on_schema_change', 'packages', 'persist_docs', 'post-hook', 'pre-hook',
        'quoting', 'schema', 'snowflake_warehouse', 'static_analysis', 'tags', 'unique_key',
    ] -%}
    {%- set options = {} -%}
    {#- batch_size is dbt's too, and none where nobody set it. -#}
    {%- for name, value in model['config'].items() if name not in others and value is not none -%}
        {%- do options.update({name: value}) -%}
    {%- endfor -%}
    {{- return(options) -}}
{% endmacro %}


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


{# One line for the log. #}
{% macro ml_training_summary(name, done) -%}
    {%- if done['status'] == 'unchanged' -%}
        {{ name }}: data, SQL and options are unchanged, training skipped, version {{ done['model_version'] }} stays
    {%- else -%}
        {{ name }}: trained version {{ done['model_version'] }}, {{ 'the best of ' ~ done['trials'] ~ ' trials (' ~ done['model_type'] ~ '), ' if done['trials'] > 1 }}{{ done['iterations'] }} iterations on {{ done['train_rows'] }} rows, loss {{ '%.5g' | format(done['loss']['train']) }}; {{ done['validation_rows'] }} rows of validation, {{ '%.5g' | format(done['loss']['validation']) }}
    {%- endif -%}
{%- endmacro %}
