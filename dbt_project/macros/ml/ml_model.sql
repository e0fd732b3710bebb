{# Train a model in the warehouse: CREATE MODEL on BigQuery, the plugin's trainer on DuckDB.

   Options are BigQuery ML's own, written in config(); a value to search for is text, as 'HPARAM_RANGE(0.01, 0.3)'.
   The settings in ml_settings() are the project's: docs/guides/train-your-first-model.md tells what they do.

   On DuckDB the relation is a view of one row, the model's champion out of the registry. #}
{% materialization ml_model, adapter='duckdb' %}

    {%- set target_relation = this.incorporate(type='view') -%}
    {%- set existing_relation = load_cached_relation(this) -%}
    {%- set training = {'given': ml_options(model['config'])} -%}
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


{# What config() says of a model beside BigQuery ML's options. #}
{% macro ml_settings() %}
    {{- return([
        'role', 'seed', 'promotion', 'engine', 'transform', 'key_columns', 'label_start_column', 'label_end_column', 'fold_column',
        'walk_forward', 'embargo_minutes', 'weight_by_uniqueness', 'time_decay',
    ]) -}}
{% endmacro %}


{# The options of CREATE MODEL among a model's configuration. #}
{% macro ml_options(config) %}
    {%- set others = ml_settings() + [
        'access', 'alias', 'begin', 'classes', 'column_types', 'concurrent_batches', 'contract', 'database', 'docs', 'enabled',
        'event_time', 'freshness', 'full_refresh', 'grants', 'group', 'imported', 'incremental_strategy', 'lookback',
        'materialized', 'meta', 'on_configuration_change', 'on_schema_change', 'packages', 'persist_docs', 'post-hook', 'pre-hook',
        'quoting', 'schema', 'snowflake_warehouse', 'static_analysis', 'tags', 'unique_key',
        'cluster_by', 'grant_access_to', 'hours_to_expiration', 'job_execution_timeout_seconds', 'kms_key_name', 'labels',
        'maximum_bytes_billed', 'partition_by', 'partition_expiration_days', 'require_partition_filter',
    ] -%}
    {%- set options = {} -%}
    {#- batch_size is dbt's too, and none where nobody set it. -#}
    {%- for name, value in config.items() if name not in others and value is not none -%}
        {%- do options.update({name: value}) -%}
    {%- endfor -%}
    {{- return(options) -}}
{% endmacro %}


{# One line for the log. #}
{% macro ml_training_summary(name, done) -%}
    {%- if done['status'] == 'unchanged' -%}
        {{ name }}: data, SQL and options are unchanged, training skipped, version {{ done['model_version'] }} stays
    {%- else -%}
        {{ name }}: trained version {{ done['model_version'] }}, {{ 'the best of ' ~ done['trials'] ~ ' trials (' ~ done['model_type'] ~ '), ' if done['trials'] > 1 }}{{ done['iterations'] }} iterations on {{ done['train_rows'] }} rows, loss {{ '%.5g' | format(done['loss']['train']) }}; {{ done['validation_rows'] }} rows of validation, {{ '%.5g' | format(done['loss']['validation']) }}
    {%- endif -%}
{%- endmacro %}
