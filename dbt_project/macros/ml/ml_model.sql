{# Train a model in the warehouse: CREATE MODEL on BigQuery, the plugin's trainer on DuckDB.

   Options are BigQuery ML's own, written in config(). Besides them:
   label_end_column: when a row's label was decided; not a feature.
   stage: 'active' (scored and traded) or 'baseline' (only compared with).
   seed: of row and column sampling, on DuckDB.

   On DuckDB the relation is a view of one row, the registry's active version of the model. #}
{% materialization ml_model, adapter='duckdb' %}

    {%- set target_relation = this.incorporate(type='view') -%}
    {%- set existing_relation = load_cached_relation(this) -%}
    {%- set training = {
        'given': ml_options(),
        'label_end_column': config.get('label_end_column'),
        'stage': config.get('stage', 'active'),
        'seed': config.get('seed', 0),
    } -%}

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
    {%- set split = options['data_split_col'] -%}
    {%- set unlearned = [split, config.get('label_end_column')] | select | list -%}

    {{ run_hooks(pre_hooks) }}

    {% call statement('main') %}
        create or replace model {{ this }}
        options (
            {%- for name, value in options.items() %}
            {{ name }} = {{ tojson(value) }}{{ ',' if not loop.last }}
            {%- endfor %}
        )
        as
        {# BigQuery's custom split of boosted trees is a BOOL, true for the rows that evaluate. #}
        select * except ({{ unlearned | join(', ') }}), {{ split }} = 'validation' as {{ split }}
        from ({{ compiled_code }})
        where {{ split }} in ('train', 'validation')
    {% endcall %}

    {{ run_hooks(post_hooks) }}

    {{ return({'relations': []}) }}

{% endmaterialization %}


{# The options of CREATE MODEL among a model's configuration. #}
{% macro ml_options() %}
    {%- set others = [
        'access', 'alias', 'batch_size', 'begin', 'column_types', 'concurrent_batches', 'contract', 'database', 'docs', 'enabled',
        'event_time', 'freshness', 'full_refresh', 'grants', 'group', 'incremental_strategy', 'label_end_column', 'lookback',
        'materialized', 'meta', 'on_configuration_change', 'on_schema_change', 'packages', 'persist_docs', 'post-hook', 'pre-hook',
        'quoting', 'schema', 'seed', 'snowflake_warehouse', 'stage', 'static_analysis', 'tags', 'unique_key',
    ] -%}
    {%- set options = {} -%}
    {%- for name, value in model['config'].items() if name not in others -%}
        {%- do options.update({name: value}) -%}
    {%- endfor -%}
    {{- return(options) -}}
{% endmacro %}


{# One line for the log. #}
{% macro ml_training_summary(name, done) -%}
    {%- if done['status'] == 'unchanged' -%}
        {{ name }}: data, SQL and options are unchanged, training skipped, version {{ done['model_version'] }} stays
    {%- else -%}
        {{ name }}: trained version {{ done['model_version'] }} in {{ done['iterations'] }} iterations on {{ done['train_rows'] }} rows, log loss {{ '%.5f' | format(done['log_loss']['train']) }}; {{ done['validation_rows'] }} rows of validation, {{ '%.5f' | format(done['log_loss']['validation']) }}
    {%- endif -%}
{%- endmacro %}
