{# How incremental models know what to rewrite: docs/concepts.md, "Refreshes". #}


{# The tables of the bookkeeping: `raw_days` (source_name, day, row_count, number) and `refreshes` (model_name,
   changed_from, number, code). Numbers rise from one entry to the next, so clocks do not matter. #}
{% macro bookkeeping(name) %}
    {{- return(api.Relation.create(database=target.database, schema=target.schema, identifier=name)) -}}
{% endmacro %}

{# BigQuery bills 10 MB for each table that is asked, and its clock is one: there a number is a time in microseconds. #}
{% macro next_number() %}{{ return(adapter.dispatch('next_number', 'tapehouse')()) }}{% endmacro %}

{% macro bigquery__next_number() %}unix_micros(current_timestamp()){% endmacro %}

{% macro default__next_number() -%}
    (
        select 1 + coalesce(max(number), 0) from (
            select number from {{ bookkeeping('raw_days') }}
            union all
            select number from {{ bookkeeping('refreshes') }}
        ) as numbers
    )
{%- endmacro %}


{# on-run-start: the tables of the bookkeeping. Entries that a later one includes are dropped here, by one statement: of those that
   change or delete rows of one table at a time, as models in parallel would, BigQuery refuses some. #}
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
        delete from {{ bookkeeping('refreshes') }} as entry
        where exists (
            select 1 from {{ bookkeeping('refreshes') }} as later
            where
                later.model_name = entry.model_name
                and later.number > entry.number
                and later.changed_from <= entry.changed_from
        );
        {{ create_trained_models() }}
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
                {{ counted_days(landed) }}
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


{# How many rows the tables have of each UTC day. BigQuery knows it of a day's partition without reading the rows; those
   that were streamed an hour ago belong to none yet, and of their tables yesterday and today are counted. #}
{% macro counted_days(landed) %}{{ return(adapter.dispatch('counted_days', 'tapehouse')(landed)) }}{% endmacro %}

{% macro default__counted_days(landed, since=none) %}
    {%- for source in landed -%}
        select
            '{{ source.name }}' as source_name,
            {{ bar_opened_at(utc(source.config.event_time), 1440) }} as day,
            count(*) as row_count
        from {{ source.relation_name }}
        {% if since %} where {{ utc(source.config.event_time) }} >= {{ since }} {% endif %}
        group by 1, 2
        {{ 'union all' if not loop.last }}
    {% endfor %}
{%- endmacro %}

{% macro bigquery__counted_days(landed) %}
    {%- set partitions = '`' ~ landed[0].database ~ '`.`' ~ landed[0].schema ~ '`.INFORMATION_SCHEMA.PARTITIONS' -%}
    {%- set names = "'" ~ landed | map(attribute='identifier') | join("', '") ~ "'" -%}
    {%- set streamed = run_query(
        'select distinct table_name from ' ~ partitions ~ ' where table_name in (' ~ names ~ ')'
        " and partition_id = '__UNPARTITIONED__' and total_rows > 0"
    ).columns[0].values() -%}
    {%- set since = "timestamp '" ~ (run_started_at - modules.datetime.timedelta(days=1)).strftime('%Y-%m-%d') ~ "'" -%}
    select
        table_name as source_name,
        parse_timestamp('%Y%m%d', partition_id) as day,
        total_rows as row_count
    from {{ partitions }}
    where
        table_name in ({{ names }})
        and regexp_contains(partition_id, '^[0-9]{8}$')
        {%- if streamed %}
            and not (table_name in ('{{ streamed | join("', '") }}') and parse_timestamp('%Y%m%d', partition_id) >= {{ since }})

        union all

        {{ default__counted_days(landed | selectattr('identifier', 'in', streamed) | list, since) }}
        {%- endif %}
{%- endmacro %}


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


{# What a node is made of, through the views between: names of sources, of models that record their changes, and of those
   that are trained, which change with their version. A table of any other kind is not followed: it counts as changed as a whole. #}
{% macro changing_parents(node) %}
    {%- set parents = {'sources': [], 'models': [], 'trained': [], 'others': []} -%}
    {%- for key in node.depends_on.nodes -%}
        {%- set parent = graph.sources.get(key) or graph.nodes.get(key) -%}
        {%- if parent.resource_type == 'source' -%}
            {%- do parents.sources.append(parent.name) -%}
        {%- elif is_recorded(parent) -%}
            {%- do parents.models.append(parent.name) -%}
        {%- elif parent.config.materialized == 'ml_model' -%}
            {%- do parents.trained.append(parent.name) -%}
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

{# Whether a model records from when on its rows changed: what is refreshed does, predictions, which are added to, and the dataset that they are
   made of, which is made anew. #}
{% macro is_recorded(node) %}
    {{- return(
        node.config.materialized in ['incremental', 'table']
        and 'record_refresh()' in (node.config['post-hook'] | map(attribute='sql') | join)
    ) -}}
{% endmacro %}

{# What else than its parents' rows a model's are made by: its SQL, and the versions of the models that it asks. Of a table it is what its SQL
   was compiled to, variables and macros included. #}
{% macro refresh_code() %}
    {%- if model.config.materialized == 'table' -%}{{- return(local_md5(model.compiled_code)) -}}{%- endif -%}
    {%- set parts = [model.checksum.checksum] -%}
    {%- for name in changing_parents(model).trained | unique | sort -%}
        {%- do parts.append(ml_present_version(api.Relation.create(database=database, schema=schema, identifier=name)) | string) -%}
    {%- endfor -%}
    {{- return(parts | join(' ')) -}}
{% endmacro %}

{# The code that each model was last written with, read once. #}
{% macro refresh_codes() %}
    {%- set known = remembered() -%}
    {%- if 'codes' not in known -%}
        {%- set codes = {} -%}
        {%- for row in run_query('select model_name, code from ' ~ bookkeeping('refreshes') ~ ' order by number') -%}
            {%- do codes.update({row[0]: row[1]}) -%}
        {%- endfor -%}
        {%- do known.update({'codes': codes}) -%}
    {%- endif -%}
    {{- return(known.codes) -}}
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

{# Whether the model is compiled for bars that have just closed, as serving does. #}
{% macro is_live() %}{{ return(target.type == 'duckdb' and builtins.var('changed_from', none) is not none) }}{% endmacro %}

{% macro first_change() %}
    {%- set parents = changing_parents(model) -%}
    {%- if parents.others or refresh_codes().get(model.name) != refresh_code() -%}{{- return(epoch()) -}}{%- endif -%}
    {%- set meta = model.config.meta -%}
    {%- set ahead = meta.get('horizon_bars', 0) * (var('interval_minutes') | max) -%}
    {%- set change -%}
        (
            select min(changed_from) from ({{ changes_of(parents) }}) as changes
            where number > (
                select max(number) from {{ bookkeeping('refreshes') }} where model_name = '{{ model.name }}'
            )
        )
    {%- endset -%}
    {%- set found = midnight_before(change, ahead) -%}
    {%- if meta.moved_back_by and '9999' not in found -%}
        {%- set found = midnight_before(context[meta.moved_back_by](found)) -%}
    {%- endif -%}
    {{- return(found) -}}
{% endmacro %}


{# What the bookkeeping says of sources and models: changed_from, number. A table that says nothing of them is not asked. #}
{% macro changes_of(parents) %}
    {%- if parents.sources or not parents.models %}
        select day as changed_from, number from {{ bookkeeping('raw_days') }}
        where source_name in ('{{ parents.sources | join("', '") }}')
    {%- endif %}
    {{ 'union all' if parents.sources and parents.models }}
    {%- if parents.models %}
        select changed_from, number from {{ bookkeeping('refreshes') }}
        where model_name in ('{{ parents.models | join("', '") }}')
    {%- endif %}
{% endmacro %}


{# A literal, after all times where there is no moment. #}
{% macro midnight_before(moment, minutes=0) %}
    {%- set found = run_query('select ' ~ bar_opened_at(add_minutes(moment, -minutes), 1440)).columns[0].values()[0] -%}
    {{- return("timestamp '9999-12-31 00:00:00'" if found is none else literal_of(found)) -}}
{% endmacro %}


{# Before all bars. #}
{% macro epoch() %}timestamp '1970-01-01 00:00:00'{% endmacro %}


{#
    A literal: the earliest of the bars that `found`, an aggregate over those of a series before `changed`, names, at latest `changed`.
    It is asked of a day, a month, then all of `int_bars` before the change, until `is_enough`, an aggregate over the series: BigQuery
    reads the days that a constant bounds. Compiled without a connection it is a day before.
#}
{% macro earliest_bar(changed, found, is_enough, series='') %}
    {%- if builtins.var('changed_from', none) -%}{{- return(add_minutes(changed, -1440)) -}}{%- endif -%}
    {%- if not execute or '9999' in changed -%}{{- return(changed) -}}{%- endif -%}
    {%- set known = remembered() -%}
    {%- set key = [changed, found, series] | join -%}
    {%- for days in [1, 32, 20000] -%}
        {%- if key not in known -%}
            {%- set question -%}
                select coalesce(min(found_at), {{ changed }}), cast({{ is_enough if days < 20000 else 'true' }} as integer)
                from (
                    select exchange, market, symbol, interval_minutes, {{ found }} as found_at, min(opened_at) as first_at
                    from {{ graph.nodes['model.tapehouse.int_bars'].relation_name }}
                    where opened_at >= {{ add_minutes(changed, -1440 * days) }} and opened_at < {{ changed }}
                    group by exchange, market, symbol, interval_minutes
                ) as bars_before
                {{ series }}
            {%- endset -%}
            {%- set answer = run_query(question).rows[0] -%}
            {%- if answer[1] -%}{%- do known.update({key: literal_of(answer[0])}) -%}{%- endif -%}
        {%- endif -%}
    {%- endfor -%}
    {{- return(known[key]) -}}
{% endmacro %}

{% macro literal_of(moment) %}{{- return("timestamp '" ~ (moment | string)[:19] ~ "'") -}}{% endmacro %}


{# For figures that run on from the last bar before the change, gaps aside: the earliest such bar. #}
{% macro last_bar(changed) %}
    {{- return(earliest_bar(changed, 'max(case when not is_gap then opened_at end)', 'count(*) = count(found_at)')) -}}
{% endmacro %}


{# For rows that join a slower series as known at a bar's `available_at`: the first bar that a change could reach. Those of a
   series arrive in their order, so the days before have none where the first bar looked at is not one. #}
{% macro first_bar_available_since(changed) %}
    {%- set found = 'min(case when available_at >= ' ~ changed ~ ' then opened_at end)' -%}
    {{- return(earliest_bar(changed, found, 'count(case when found_at = first_at then 1 end) = 0')) -}}
{% endmacro %}


{# For gaps, which lie between two bars: the last bar before the change of a series that goes on after it and has no rows up to
   it yet. A series that begins has none, which nothing but its whole history says. #}
{% macro last_bar_before(changed) %}
    {%- set joined -%}
        right join (
            select distinct exchange, market, symbol, interval_minutes
            from {{ graph.nodes['model.tapehouse.int_klines'].relation_name }}
            where opened_at >= {{ changed }}
        ) as going_on using (exchange, market, symbol, interval_minutes)
    {%- endset -%}
    {%- set is_before = add_minutes('max(opened_at)', 'interval_minutes') ~ ' < ' ~ changed -%}
    {%- set found = 'case when ' ~ is_before ~ ' then max(opened_at) end' -%}
    {{- return(earliest_bar(changed, found, 'count(*) = count(first_at)', joined)) -}}
{% endmacro %}


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


{# post-hook: what the model rewrote, in one transaction with it. #}
{% macro record_refresh() %}
    {%- if execute and is_recorded(model) and not flags.EMPTY -%}
        {%- set changed = epoch() if should_full_refresh() else changed_from() -%}
        {%- if '9999' not in changed %}
            insert into {{ bookkeeping('refreshes') }}
            select '{{ model.name }}', {{ changed }}, {{ next_number() }}, '{{ refresh_code() }}'
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
    {{- return(refresh_codes().get(model.name) != refresh_code()) -}}
{% endmacro %}


{# What was read once and holds until the run ends, for all models. #}
{% macro remembered() %}
    {{- return(graph.setdefault('refreshes', {})) -}}
{% endmacro %}
