{# How incremental models know what to rewrite: docs/concepts.md, "Refreshes". #}


{# The tables of the bookkeeping: `raw_days` (source_name, day, row_count, number) and `refreshes` (model_name,
   changed_from, number, code). Numbers rise from one entry to the next, so clocks do not matter. #}
{% macro bookkeeping(name) %}
    {{- return(api.Relation.create(database=database, schema=schema, identifier=name)) -}}
{% endmacro %}

{% macro next_number() -%}
    (
        select 1 + coalesce(max(number), 0) from (
            select number from {{ bookkeeping('raw_days') }}
            union all
            select number from {{ bookkeeping('refreshes') }}
        ) as numbers
    )
{%- endmacro %}


{# on-run-start: the tables of the bookkeeping. #}
{% macro create_bookkeeping() %}
    {%- if execute and flags.WHICH in ['run', 'build'] %}
        {%- do remembered().clear() %}
        create table if not exists {{ bookkeeping('raw_days') }} (
            source_name {{ dbt.type_string() }}, day timestamp, row_count {{ dbt.type_bigint() }},
            number {{ dbt.type_bigint() }}
        );
        create table if not exists {{ bookkeeping('refreshes') }} (
            model_name {{ dbt.type_string() }}, changed_from timestamp, number {{ dbt.type_bigint() }},
            code {{ dbt.type_string() }}
        );
    {%- endif %}
{% endmacro %}


{# on-run-start: count the raw rows of each UTC day. Raw tables are append-only, so a day changed if its count did. #}
{% macro count_raw_days() %}
    {%- set landed = [] -%}
    {%- if execute and flags.WHICH in ['run', 'build'] -%}
        {%- for source in graph.sources.values() if source.config.event_time -%}
            {%- if has_landed(source) -%}
                {%- do landed.append(source) -%}
            {%- endif -%}
        {%- endfor -%}
    {%- endif -%}
    {%- if landed %}
        merge into {{ bookkeeping('raw_days') }} as known
        using (
            with counted as (
                {% for source in landed -%}
                    select
                        '{{ source.name }}' as source_name,
                        {{ bar_opened_at(utc(source.config.event_time), 1440) }} as day,
                        count(*) as row_count
                    from {{ source.relation_name }}
                    group by 1, 2
                    {{ 'union all' if not loop.last }}
                {% endfor %}
            )

            select
                coalesce(counted.source_name, before.source_name) as source_name,
                coalesce(counted.day, before.day) as day,
                coalesce(counted.row_count, 0) as row_count,
                {{ next_number() }} as number

            from counted
            full join (
                select * from {{ bookkeeping('raw_days') }}
                where source_name in ('{{ landed | map(attribute="name") | join("', '") }}')
            ) as before
                on counted.source_name = before.source_name
                and counted.day = before.day

            where coalesce(counted.row_count, 0) is distinct from before.row_count
        ) as changed
        on known.source_name = changed.source_name and known.day = changed.day
        when matched then update set row_count = changed.row_count, number = changed.number
        when not matched then insert (source_name, day, row_count, number)
            values (changed.source_name, changed.day, changed.row_count, changed.number)
    {%- endif %}
{% endmacro %}


{# Whether a source's table exists. On DuckDB the adapter's own answer would begin a transaction around the hook, which dbt rolls back. #}
{% macro has_landed(source) %}{{ return(adapter.dispatch('has_landed', 'tapehouse')(source)) }}{% endmacro %}

{% macro default__has_landed(source) %}
    {{- return(adapter.get_relation(source.database, source.schema, source.identifier) is not none) -}}
{% endmacro %}

{% macro duckdb__has_landed(source) %}
    {{- return(run_query(
        "select 1 from duckdb_tables() where schema_name = '" ~ source.schema ~ "' and table_name = '" ~ source.identifier ~ "'"
    ) | length > 0) -}}
{% endmacro %}


{# What a node is made of, through the views between: names of sources and of incremental models. A table of any
   other kind is not followed: it counts as changed as a whole. #}
{% macro changing_parents(node) %}
    {%- set parents = {'sources': [], 'models': [], 'others': []} -%}
    {%- for key in node.depends_on.nodes -%}
        {%- set parent = graph.sources.get(key) or graph.nodes.get(key) -%}
        {%- if parent.resource_type == 'source' -%}
            {%- do parents.sources.append(parent.name) -%}
        {%- elif is_refreshed(parent) -%}
            {%- do parents.models.append(parent.name) -%}
        {%- elif parent.config.materialized == 'view' -%}
            {%- for kind, names in changing_parents(parent).items() -%}
                {%- do parents[kind].extend(names) -%}
            {%- endfor -%}
        {%- else -%}
            {%- do parents.others.append(parent.name) -%}
        {%- endif -%}
    {%- endfor -%}
    {{- return(parents) -}}
{% endmacro %}

{% macro is_refreshed(node) %}
    {{- return(
        node.config.materialized == 'incremental'
        and node.config.incremental_strategy in ['replace_changed', 'insert_overwrite']
    ) -}}
{% endmacro %}


{#
    The UTC midnight from which on the model's rows are to be written again, a literal; all its times lie before it
    where nothing changed. It is the earliest change of its parents since its own last refresh, moved back as far as
    the model's rows look ahead (`meta.horizon_bars`) or as the macro says that `meta.moved_back_by` names.
#}
{% macro changed_from() %}
    {%- set given = builtins.var('changed_from', none) -%}
    {%- if given -%}{{- return(given) -}}{%- endif -%}
    {%- if not execute -%}{{- return(epoch()) -}}{%- endif -%}
    {%- set known = remembered() -%}
    {%- if model.name not in known -%}
        {%- do known.update({model.name: first_change()}) -%}
    {%- endif -%}
    {{- return(known[model.name]) -}}
{% endmacro %}

{% macro first_change() %}
    {%- set parents = changing_parents(model) -%}
    {%- if parents.others -%}{{- return(epoch()) -}}{%- endif -%}
    {%- set meta = model.config.meta -%}
    {%- set ahead = meta.get('horizon_bars', 0) * (var('interval_minutes') | max) -%}
    {%- set change -%}
        (
            select min(changed_from) from (
                select day as changed_from, number from {{ bookkeeping('raw_days') }}
                where source_name in ('{{ parents.sources | join("', '") }}')
                union all
                select changed_from, number from {{ bookkeeping('refreshes') }}
                where model_name in ('{{ parents.models | join("', '") }}')
            ) as changes
            where number > (
                select max(number) from {{ bookkeeping('refreshes') }} where model_name = '{{ model.name }}'
            )
        )
    {%- endset -%}
    {%- if meta.moved_back_by -%}{%- set change = context[meta.moved_back_by](change) -%}{%- endif -%}
    {%- set found = run_query('select ' ~ bar_opened_at(add_minutes(change, -ahead), 1440)).columns[0].values()[0] -%}
    {%- if found is none -%}{{- return("timestamp '9999-12-31 00:00:00'") -}}{%- endif -%}
    {{- return("timestamp '" ~ (found | string)[:19] ~ "'") -}}
{% endmacro %}


{# Before all bars. #}
{% macro epoch() %}timestamp '1970-01-01 00:00:00'{% endmacro %}


{# For rows that join a slower series as known at a bar's `available_at`: the first bar that a change could reach. #}
{% macro first_bar_available_since(change) -%}
    (
        select least({{ change }}, coalesce(min(opened_at), {{ change }})) from {{ graph.nodes['model.tapehouse.int_bars'].relation_name }}
        where available_at >= {{ change }}
    )
{%- endmacro %}


{# For gaps, which lie between two bars: the last bar before the change of a series with a gap up to the change. #}
{% macro last_bar_before(change) -%}
    (
        select least({{ change }}, coalesce(min(last_opened_at), {{ change }})) from (
            select
                interval_minutes,
                max(case when opened_at < {{ change }} then opened_at end) as last_opened_at
            from {{ ref('int_klines') }}
            group by exchange, market, symbol, interval_minutes
            having max(opened_at) >= {{ change }}
        ) as series
        where {{ add_minutes('last_opened_at', 'interval_minutes') }} < {{ change }}
    )
{%- endmacro %}


{# Whether a bar is among those that decide the rows from `changed` on: they and the `meta.lookback_bars` (or
   `meta.lookback_minutes`, if that reaches further) before them. The last condition is the first for the longest bars;
   being constant, it spares the engine most of the table. #}
{% macro in_lookback(changed) -%}
    {%- set bars = model.config.meta.get('lookback_bars', 0) -%}
    {%- set minutes = model.config.meta.get('lookback_minutes', 0) | int -%}
    {%- set longest = [bars * (var('interval_minutes') | max), minutes] | max -%}
    (
        opened_at >= {{ add_minutes(changed, '-' ~ bars ~ ' * interval_minutes') }}
        {%- if minutes %} or opened_at >= {{ add_minutes(changed, -minutes) }}{% endif %}
    )
    and opened_at >= {{ add_minutes(changed, -longest) }}
{%- endmacro %}


{# post-hook: what the model rewrote, in one transaction with it. Entries that a later one includes are dropped. #}
{% macro record_refresh() %}
    {%- if execute and is_refreshed(model) and not flags.EMPTY -%}
        {%- set changed = epoch() if should_full_refresh() else changed_from() -%}
        {%- if '9999' not in changed %}
            insert into {{ bookkeeping('refreshes') }}
            select '{{ model.name }}', {{ changed }}, {{ next_number() }}, '{{ model.checksum.checksum }}';
            delete from {{ bookkeeping('refreshes') }}
            where
                model_name = '{{ model.name }}'
                and changed_from >= {{ changed }}
                and number < (
                    select max(number) from {{ bookkeeping('refreshes') }} where model_name = '{{ model.name }}'
                )
        {%- endif -%}
    {%- endif -%}
{% endmacro %}


{# The incremental strategy: rows from the change on are replaced. #}
{% macro get_incremental_replace_changed_sql(arg_dict) %}
    {%- set columns = arg_dict['dest_columns'] | map(attribute='quoted') | join(', ') %}
    delete from {{ arg_dict['target_relation'] }} where {{ config.get('event_time') }} >= {{ changed_from() }};
    insert into {{ arg_dict['target_relation'] }} ({{ columns }}) select {{ columns }} from {{ arg_dict['temp_relation'] }}
{% endmacro %}


{# The same on BigQuery, where `insert_overwrite` would leave the days of which nothing is left. One statement, so nobody sees
   the rows gone; the times before the change are a constant condition, so their partitions are neither read nor written. #}
{% macro bq_generate_incremental_insert_overwrite_build_sql(
    tmp_relation, target_relation, sql, unique_key, partition_by, partitions, dest_columns, tmp_relation_exists, copy_partitions
) %}
    {%- set columns = dest_columns | map(attribute='quoted') | join(', ') %}
    {%- set changed = 'date(' ~ changed_from() ~ ')' if partition_by.data_type == 'date' else changed_from() %}
    merge into {{ target_relation }} as written
    using {% if tmp_relation_exists %}{{ tmp_relation }}{% else %}({{ sql }}){% endif %} as changed
    on false
    when not matched by source and written.{{ partition_by.field }} >= {{ changed }} then delete
    when not matched then insert ({{ columns }}) values ({{ columns }})
{% endmacro %}


{# Where nothing changed there are no new rows: the model's query, which may be long, is not even planned. Long tables are made in slices. #}
{% macro duckdb__create_table_as(
    temporary, relation, compiled_code, language='sql', partitioned_by=none, sorted_by=none
) -%}
    {%- if temporary and is_refreshed(model) and '9999' in changed_from() -%}
        create temporary table {{ relation.include(database=false, schema=false) }} as select * from {{ this }} limit 0
    {%- else -%}
        {{ (create_in_slices(temporary, relation, compiled_code) if is_refreshed(model))
            or dbt.duckdb__create_table_as(temporary, relation, compiled_code, language, partitioned_by, sorted_by) }}
    {%- endif -%}
{%- endmacro %}


{# Without a refresh on record, or with other code, an incremental model is built anew. #}
{% macro should_full_refresh() %}
    {%- if dbt.should_full_refresh() -%}{{- return(true) -}}{%- endif -%}
    {%- if not execute or not flags.INTROSPECT or not is_refreshed(model) -%}{{- return(false) -}}{%- endif -%}
    {%- set known = remembered() -%}
    {%- if 'codes' not in known -%}
        {%- set codes = {} -%}
        {%- for row in run_query('select model_name, code from ' ~ bookkeeping('refreshes') ~ ' order by number') -%}
            {%- do codes.update({row[0]: row[1]}) -%}
        {%- endfor -%}
        {%- do known.update({'codes': codes}) -%}
    {%- endif -%}
    {{- return(known.codes.get(model.name) != model.checksum.checksum) -}}
{% endmacro %}


{# What was read once and holds until the run ends, for all models. #}
{% macro remembered() %}
    {{- return(graph.setdefault('refreshes', {})) -}}
{% endmacro %}
