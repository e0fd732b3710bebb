{#
The strategies: rows of the seed, checked, each with the columns of its `families` and those of them that are `booleans`.
Where the warehouse may not be asked (`--no-introspect`) the variable `strategies`, a list of rows, stands in for the seed.
#}
{% macro strategies() %}
    {%- set seed = ref('strategies') -%}
    {%- set loaded = load_relation(seed) if execute and flags.INTROSPECT else none -%}
    {%- set rows = var('strategies', none) -%}
    {%- if rows is none -%}
        {%- set rows = [] -%}
        {%- if loaded is not none -%}
            {%- for row in run_query('select name, market, symbols, interval_minutes, features, label from ' ~ loaded ~ ' order by name') -%}
                {%- do rows.append(row.dict()) -%}
            {%- endfor -%}
        {%- endif -%}
    {%- endif -%}
    {%- set found = [] -%}
    {%- set problems = [] -%}
    {%- for row in (rows if execute else []) -%}
        {%- set strategy = strategy_of(row) -%}
        {%- if row.name in found | map(attribute='name') -%}
            {%- do strategy.problems.append('the name is there twice') -%}
        {%- endif -%}
        {%- for problem in strategy.problems -%}
            {%- do problems.append('row ' ~ row.name ~ ': ' ~ problem) -%}
        {%- endfor -%}
        {%- do found.append(strategy) -%}
    {%- endfor -%}
    {%- if problems -%}
        {%- do exceptions.raise_compiler_error('the seed strategies\n  ' ~ problems | join('\n  ')) -%}
    {%- endif -%}
    {{- return(found) -}}
{% endmacro %}


{# One row of the seed, read; `problems` says what is wrong with it. #}
{% macro strategy_of(row) %}
    {%- set problems = [] -%}
    {%- set symbols = (row.symbols or '').split() -%}
    {%- set interval_minutes = row.interval_minutes | int(0) -%}
    {%- set selected = features_of(row.features or '', problems) -%}

    {%- if not modules.re.fullmatch('[a-z][a-z0-9_]{0,59}', row.name or '') -%}
        {%- do problems.append('expected a name of lower-case letters, digits and _, at most 60, a letter first') -%}
    {%- endif -%}
    {%- for node in graph.nodes.values() if node.resource_type in ['model', 'seed', 'snapshot'] and node.alias == 'ds_' ~ row.name -%}
        {%- do problems.append('ds_' ~ row.name ~ ' is already ' ~ node.original_file_path) -%}
    {%- endfor -%}
    {%- if row.market not in ['spot', 'um'] -%}
        {%- do problems.append('market ' ~ row.market ~ ': expected spot or um') -%}
    {%- endif -%}
    {%- for symbol in symbols if symbol != '*' and not modules.re.fullmatch('[A-Z0-9]{2,30}(_[A-Z0-9]{1,10})?', symbol) -%}
        {%- do problems.append('symbol ' ~ symbol ~ ': expected it as the exchange writes it, such as BTCUSDT') -%}
    {%- endfor -%}
    {%- if not symbols or ('*' in symbols and symbols | length > 1) or symbols | unique | list != symbols -%}
        {%- do problems.append("symbols '" ~ symbols | join(' ') ~ "': expected each once, parted by spaces, or * alone for all") -%}
    {%- endif -%}
    {%- for variable in ['interval_minutes'] + (['alpha158_interval_minutes'] if 'feat_alpha158' in selected.families else []) -%}
        {%- if interval_minutes not in var(variable) -%}
            {%- do problems.append('interval_minutes ' ~ row.interval_minutes ~ ': expected one of the variable ' ~ variable
                ~ ': ' ~ var(variable) | join(', ')) -%}
        {%- endif -%}
    {%- endfor -%}
    {%- if row.label not in labels() -%}
        {%- do problems.append('label ' ~ row.label ~ ': expected one of ' ~ labels() | sort | join(', ')) -%}
    {%- endif -%}

    {{- return({
        'name': row.name,
        'market': row.market,
        'symbols': none if symbols == ['*'] else symbols,
        'interval_minutes': interval_minutes,
        'families': selected.families,
        'booleans': selected.booleans,
        'label': row.label,
        'problems': problems,
    }) -}}
{% endmacro %}


{#
What a strategy selects: `family` for all its model-ready columns, `family.pattern` with * for those of them that match, and
`family.column` for that column whatever its unit. Problems are added to a list.
#}
{% macro features_of(selection, problems) %}
    {%- set models = models_in('features') -%}
    {%- set families = {} -%}
    {%- set booleans = [] -%}
    {%- for item in selection.split() -%}
        {%- set family, _, pattern = item.partition('.') -%}
        {%- set model = 'feat_' ~ family -%}
        {%- set wanted = [] -%}
        {%- if model not in models -%}
            {%- do problems.append('family ' ~ family ~ ': expected one of ' ~ models | sort | join(', ') | replace('feat_', '')) -%}
        {%- else -%}
            {%- set ready = model_ready_columns(models[model]) -%}
            {%- set expression = modules.re.escape(pattern or '*').replace('\\*', '.*') -%}
            {%- for column in models[model].columns if modules.re.fullmatch(expression, column) and (column == pattern or column in ready) -%}
                {%- do wanted.append(column) -%}
            {%- endfor -%}
            {%- if not wanted -%}
                {%- do problems.append('feature ' ~ item ~ ': expected columns of ' ~ model ~ ', such as ' ~ ready | join(', ')) -%}
            {%- endif -%}
        {%- endif -%}
        {%- for column in wanted if column not in families.get(model, []) -%}
            {%- if column in families.values() | sum(start=[]) -%}
                {%- do problems.append('feature ' ~ item ~ ': another family has a column ' ~ column ~ ' too') -%}
            {%- endif -%}
            {%- do families.update({model: families.get(model, []) + [column]}) -%}
            {%- if models[model].columns[column].data_type == 'boolean' -%}
                {%- do booleans.append(column) -%}
            {%- endif -%}
        {%- endfor -%}
    {%- endfor -%}
    {%- if not selection.split() -%}
        {%- do problems.append('features: expected families or columns, such as `ta orderflow.quoted_spread_bps`') -%}
    {%- endif -%}
    {{- return({'families': families, 'booleans': booleans}) -}}
{% endmacro %}


{#
A table `ds_<name>` for each row of the model's SQL: what a dataset is, and in `dataset_sql` the query that makes it. Then the
model's own table: these rows, and what is in the datasets. Tables of rows that are gone are dropped, and no others.
#}
{% materialization datasets, default %}
    {%- set target_relation = this.incorporate(type='table') -%}
    {%- set existing = load_cached_relation(this) -%}
    {%- set made = [] -%}

    {{ run_hooks(pre_hooks, inside_transaction=False) }}
    {{ run_hooks(pre_hooks, inside_transaction=True) }}

    {%- if load_relation(ref('strategies')) is none -%}
        {%- do exceptions.raise_compiler_error('the seed strategies is not loaded: run `dbt build`, or `dbt seed` before `dbt run`') -%}
    {%- endif -%}
    {%- if existing is not none -%}
        {%- do made.extend(run_query('select name from ' ~ existing).columns[0].values()) -%}
    {%- endif -%}
    {%- set definitions = run_query(compiled_code) -%}
    {%- set fresh = [] -%}
    {%- for definition in definitions if definition['name'] not in made -%}
        {%- set relation = dataset_relation(target_relation, definition['name']) -%}
        {%- if load_cached_relation(relation) is not none -%}
            {%- do exceptions.raise_compiler_error(relation ~ ' was not made by ds_strategies: drop it, or name the strategy otherwise') -%}
        {%- endif -%}
        {%- do fresh.append(definition['name']) -%}
    {%- endfor -%}
    {%- do announce_datasets(target_relation, existing, fresh) -%}
    {%- for definition in definitions -%}
        {%- set relation = dataset_relation(target_relation, definition['name']) -%}
        {% call statement(definition['name']) -%}
            create or replace table {{ relation }} {{ dataset_layout() }} as {{ definition['dataset_sql'] }}
        {%- endcall %}
    {%- endfor -%}
    {%- for name in made if name not in definitions.columns['name'].values() -%}
        {%- do adapter.drop_relation(dataset_relation(target_relation, name)) -%}
    {%- endfor -%}

    {%- do make_room_for_datasets(existing) -%}
    {% call statement('main') -%}
        {{ create_table_as(False, target_relation, datasets_with_contents(compiled_code, definitions, target_relation)) }}
    {%- endcall %}

    {{ run_hooks(post_hooks, inside_transaction=True) }}
    {% do persist_docs(target_relation, model) %}
    {{ adapter.commit() }}
    {{ run_hooks(post_hooks, inside_transaction=False) }}

    {{ return({'relations': [target_relation]}) }}
{% endmaterialization %}


{# BigQuery makes tables outside of transactions: it is told first which tables this model is going to make, so that they are known as its
   own after a run that failed in between, and its list is replaced, never dropped. #}
{% macro announce_datasets(list, existing, names) %}
    {{- return(adapter.dispatch('announce_datasets', 'tapehouse')(list, existing, names)) -}}
{% endmacro %}

{% macro default__announce_datasets(list, existing, names) %}{% endmacro %}

{% macro bigquery__announce_datasets(list, existing, names) %}
    {%- if names -%}
        {%- set rows = "select name from unnest(['" ~ names | join("', '") ~ "']) as name" -%}
        {%- do run_query(('insert into ' ~ list ~ ' (name) ' if existing else 'create table ' ~ list ~ ' as ') ~ rows) -%}
    {%- endif -%}
{% endmacro %}

{% macro make_room_for_datasets(existing) %}
    {{- return(adapter.dispatch('make_room_for_datasets', 'tapehouse')(existing)) -}}
{% endmacro %}

{% macro default__make_room_for_datasets(existing) %}{%- if existing -%}{%- do adapter.drop_relation(existing) -%}{%- endif -%}{% endmacro %}

{% macro bigquery__make_room_for_datasets(existing) %}{% endmacro %}


{# How a dataset's table lies: on BigQuery a partition for each day, as dbt makes that of every other table of bars. #}
{% macro dataset_layout() %}{{ return(adapter.dispatch('dataset_layout', 'tapehouse')()) }}{% endmacro %}

{% macro default__dataset_layout() %}{% endmacro %}

{% macro bigquery__dataset_layout() %}partition by timestamp_trunc(opened_at, day) cluster by symbol{% endmacro %}


{# The definitions of datasets with what is in them: one row each. #}
{% macro datasets_with_contents(definitions_sql, definitions, beside) -%}
    with definitions as ({{ definitions_sql }}),

    contents as (

        {% for definition in definitions -%}
            {% set relation = dataset_relation(beside, definition['name']) -%}
            select
                '{{ definition['name'] }}' as name,
                count(dataset_rows.opened_at) as row_count,
                count({{ definition['label'] }}) as labelled_row_count,
                min(opened_at) as first_opened_at,
                max(opened_at) as last_opened_at,
                max(parts.train_end_at) as train_end_at,
                max(parts.validation_end_at) as validation_end_at

            from ({{ time_parts(relation, definition['label']) }}) as parts
            left join {{ relation }} as dataset_rows on true
            {{ 'union all' if not loop.last }}
        {% else -%}
            select
                cast(null as {{ dbt.type_string() }}) as name,
                0 as row_count,
                0 as labelled_row_count,
                cast(null as timestamp) as first_opened_at,
                cast(null as timestamp) as last_opened_at,
                cast(null as timestamp) as train_end_at,
                cast(null as timestamp) as validation_end_at
        {% endfor %}
    )

    select
        definitions.*,
        contents.row_count,
        contents.labelled_row_count,
        contents.first_opened_at,
        contents.last_opened_at,
        contents.train_end_at,
        contents.validation_end_at

    from definitions
    inner join contents on definitions.name = contents.name
{%- endmacro %}


{# The table of a strategy; the model that asks is built after it. #}
{% macro dataset(name) %}
    {%- set strategies = ref('ds_strategies') -%}
    {%- if strategies.is_cte -%}
        {{- return(strategies) -}}
    {%- endif -%}
    {%- set built = load_relation(strategies) if execute and flags.INTROSPECT else none -%}
    {%- if built is not none -%}
        {%- set names = run_query('select name from ' ~ built ~ ' order by name').columns[0].values() -%}
        {%- if name not in names -%}
            {%- do exceptions.raise_compiler_error("dataset('" ~ name ~ "'): the seed strategies has " ~ names | join(', ')) -%}
        {%- endif -%}
    {%- endif -%}
    {{- return(dataset_relation(strategies, name)) -}}
{% endmacro %}

{% macro dataset_relation(beside, name) %}
    {{- return(beside.incorporate(path={'identifier': 'ds_' ~ name})) -}}
{% endmacro %}
