{# What BigQuery ML keeps no record of, in the table `trained_models`: each training of a model there, with the time to which its training and
   validation parts knew the future and a hash of the rows and of the statement that it was trained with. While one runs, and after one that
   failed, the latest row of its model has no version: nothing is predicted then. Unlike a model, a version never changes; its name is the
   time to which it learned and that at which it did. #}


{# What is known of the present version of a model: model_version, train_end_at and validation_end_at as text, none before it is trained and while
   dbt compiles without a connection. The file of an imported model tells its own. #}
{% macro ml_trained(model) %}
    {%- set name = model.identifier | replace('__dbt__cte__', '') -%}
    {%- set imported = ml_imported(model) -%}
    {%- if imported -%}
        {{- return({
            'model_version': imported.get('version'), 'train_end_at': imported.get('train_end_at'),
            'validation_end_at': imported.get('validation_end_at'),
        }) -}}
    {%- endif -%}
    {{- return(ml_trained_models().get(name, {})) -}}
{% endmacro %}


{# The latest row of each model, read once in a run. #}
{% macro ml_trained_models() %}
    {%- set known = remembered() -%}
    {%- if 'trained' not in known -%}
        {%- set trained = {} -%}
        {%- set kept = bookkeeping('trained_models') -%}
        {%- if execute and flags.INTROSPECT and adapter.get_relation(kept.database, kept.schema, kept.identifier) -%}
            {%- set question -%}
                select model_name, model_version, cast(train_end_at as string), cast(validation_end_at as string), inputs
                from {{ kept }}
                qualify row_number() over (partition by model_name order by begun_at desc, model_version desc) = 1
            {%- endset -%}
            {%- for row in run_query(question) -%}
                {%- do trained.update({row[0]: {
                    'model_version': row[1], 'train_end_at': row[2], 'validation_end_at': row[3], 'inputs': row[4]
                }}) -%}
            {%- endfor -%}
        {%- endif -%}
        {%- do known.update({'trained': trained}) -%}
    {%- endif -%}
    {{- return(known['trained']) -}}
{% endmacro %}


{# on-run-start on BigQuery: the table. #}
{% macro create_trained_models() %}{{ return(adapter.dispatch('create_trained_models', 'tapehouse')()) }}{% endmacro %}

{% macro default__create_trained_models() %}{% endmacro %}

{% macro bigquery__create_trained_models() %}
    create table if not exists {{ bookkeeping('trained_models') }} (
        model_name string, model_version string, train_end_at timestamp, validation_end_at timestamp, inputs string,
        begun_at timestamp
    );
{% endmacro %}


{# What a model would be trained with now: `inputs`, a hash of the statement with a count and sum over the rows, and the ends of its parts. #}
{% macro ml_training_inputs(config, sql, training) %}
    {%- set split = config['data_split_col'] -%}
    {%- set end_at = config.get('label_end_column') or 'cast(null as timestamp)' -%}
    {%- set question -%}
        select
            concat(
                '{{ local_md5(training) }}-', cast(count(*) as string), '-',
                cast(sum(cast(farm_fingerprint(to_json_string(learned)) as numeric)) as string)
            ),
            cast(max(case when {{ split }} = 'train' then {{ end_at }} end) as string),
            cast(max(case when {{ split }} = 'validation' then {{ end_at }} end) as string)
        from (
            select * from ({{ sql }})
            where {{ split }} in ('train', 'validation') and {{ config['input_label_cols'][0] }} is not null
        ) as learned
    {%- endset -%}
    {%- set row = run_query(question).rows[0] -%}
    {{- return({'inputs': row[0], 'train_end_at': row[1], 'validation_end_at': row[2]}) -}}
{% endmacro %}


{% materialization ml_model, adapter='bigquery' %}

    {%- set training = ml_create_model(this, model['config'], compiled_code) -%}
    {%- set trained = ml_trained_models() -%}

    {{ run_hooks(pre_hooks) }}

    {% if ml_imported(this) %}
        {% call statement('main') %}{{ training }}{% endcall %}
    {% else %}
        {% set version = ml_training_inputs(model['config'], compiled_code, training) %}
        {% if version['inputs'] == trained.get(this.identifier, {}).get('inputs') and not should_full_refresh() %}
            {% do log(this.identifier ~ ': data, SQL and options are unchanged, training skipped, version '
                ~ trained[this.identifier]['model_version'] ~ ' stays', info=True) %}
            {# It does nothing where the model is there. #}
            {% call statement('main') %}{{ training | replace('create or replace model', 'create model if not exists') }}{% endcall %}
        {% else %}
            {% set learned_to = (version['train_end_at'] or '') | replace('-', '') | replace(':', '') | replace(' ', 'T') %}
            {% set begun_at = modules.datetime.datetime.now(modules.pytz.utc) %}
            {% do version.update({'model_version': (learned_to[:15] ~ '_' if learned_to) ~ begun_at.strftime('%Y%m%dT%H%M%S')}) %}
            {% call statement('begun') %}
                insert into {{ bookkeeping('trained_models') }} (model_name, begun_at)
                values ('{{ this.identifier }}', timestamp '{{ begun_at }}')
            {% endcall %}
            {% call statement('main') %}{{ training }}{% endcall %}
            {% call statement('trained') %}
                insert into {{ bookkeeping('trained_models') }}
                    (model_name, model_version, train_end_at, validation_end_at, inputs, begun_at)
                values (
                    '{{ this.identifier }}', '{{ version['model_version'] }}', {{ ml_instant(version['train_end_at']) }},
                    {{ ml_instant(version['validation_end_at']) }}, '{{ version['inputs'] }}', timestamp '{{ begun_at }}'
                )
            {% endcall %}
            {% do trained.update({this.identifier: version}) %}
        {% endif %}
    {% endif %}

    {{ run_hooks(post_hooks) }}

    {{ return({'relations': []}) }}

{% endmaterialization %}


{# A moment as a literal of BigQuery, or NULL. #}
{% macro ml_instant(moment) %}{{ "timestamp '" ~ moment ~ "'" if moment else 'cast(null as timestamp)' }}{% endmacro %}
