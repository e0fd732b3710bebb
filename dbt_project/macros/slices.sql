{# How long tables are built in bounded memory on DuckDB: docs/concepts.md, "Refreshes". #}


{#
    The statements that create a table of an incremental model slice by slice of time, none where one slice will do. A
    slice is what a refresh from its first midnight on would write, of parents that end at its last one (moved on as far
    as the model's rows look ahead): equal rows by the promise of refreshes, in the same transaction.
#}
{% macro create_in_slices(temporary, relation, compiled_code) -%}
    {%- set bounds = bounds_of_slices(epoch() if not temporary else changed_from()) -%}
    {%- if bounds -%}
        {%- set kept = relation -%}
        {%- if temporary -%}
            {%- set kept = relation.include(database=false, schema=false) -%}
        {%- endif -%}
        {{ dbt.duckdb__create_table_as(temporary, relation, until(bounds[0], compiled_code)) }};
        {% for bound in bounds -%}
            insert into {{ kept }} by name
            {{ until(bounds[loop.index] if not loop.last else none, refreshed_from(bound, temporary, kept)) }};
        {% endfor %}
    {%- endif -%}
{%- endmacro %}


{# The midnights between the slices of what the model writes from a time on: whole days that hold about `slice_rows` rows of its first parent. #}
{% macro bounds_of_slices(changed) %}
    {%- set tables = bars_read(model) -%}
    {%- if not tables or model.config.event_time != 'opened_at' or model.config.meta.moved_back_by == 'last_bar_before' -%}
        {{- return([]) -}}
    {%- endif -%}
    {%- set known, name = remembered(), 'slices of ' ~ tables[0] ~ ' from ' ~ changed -%}
    {%- if name not in known -%}
        {%- set bounds = [] -%}
        {%- for row in run_query(
            'select min(day) from ('
            ~ 'select day, (sum(row_count) over (order by day) - row_count) // ' ~ var('slice_rows') ~ ' as slice from ('
            ~ "select time_bucket(interval '1 day', opened_at) as day, count(*) as row_count from "
            ~ graph.nodes['model.tapehouse.' ~ tables[0]].relation_name ~ ' where opened_at >= ' ~ changed ~ ' group by 1'
            ~ ')) group by slice order by 1 offset 1'
        ).columns[0].values() -%}
            {%- do bounds.append("timestamp '" ~ (row | string)[:19] ~ "'") -%}
        {%- endfor -%}
        {%- do known.update({name: bounds}) -%}
    {%- endif -%}
    {{- return(known[name]) -}}
{% endmacro %}


{# The tables of bars that a node reads, also through views; none where it reads a source, which no slice bounds. #}
{% macro bars_read(node) %}
    {%- set parents = changing_parents(node) -%}
    {%- set tables = [] -%}
    {%- if not parents.sources and not parents.others -%}
        {%- for name in parents.models if graph.nodes['model.tapehouse.' ~ name].config.event_time == 'opened_at' -%}
            {%- do tables.append(name) -%}
        {%- endfor -%}
    {%- endif -%}
    {{- return(tables) -}}
{% endmacro %}


{# A model's query with its parents, and what it writes, cut off at a midnight. #}
{% macro until(bound, code) -%}
    {%- set cut = namespace(code=code) -%}
    {%- if bound -%}
        {%- set ahead = model.config.meta.get('horizon_bars', 0) * (var('interval_minutes') | max) -%}
        {%- for key in model.depends_on.nodes if graph.nodes[key].config.event_time == 'opened_at' -%}
            {%- set name = graph.nodes[key].relation_name -%}
            {%- set cut.code = cut.code | replace(name, '(select * from ' ~ name ~ ' where opened_at < ' ~ add_minutes(bound, ahead) ~ ')') -%}
        {%- endfor -%}
    {%- endif -%}
    select * from ({{ cut.code }})
    {%- if bound %} where opened_at < {{ bound }}{% endif %}
{%- endmacro %}


{# A model's query as a refresh from a midnight on would run it, where the slices before are kept in a table that is not yet its own. #}
{% macro refreshed_from(bound, temporary, kept) %}
    {%- set known = remembered() -%}
    {%- set before = {model.name: known[model.name]} if model.name in known else {} -%}
    {%- set written = this | string -%}
    {%- if temporary -%}
        {%- set kept = '(select * from ' ~ written ~ ' where opened_at < ' ~ changed_from() ~ ' union all by name select * from ' ~ kept ~ ')' -%}
    {%- endif -%}
    {%- do known.update({model.name: bound, 'slice of ' ~ model.name: true}) -%}
    {%- set code = render(model.raw_code) | replace(written, kept | string) -%}
    {%- do known.pop('slice of ' ~ model.name) -%}
    {%- do known.pop(model.name) -%}
    {%- do known.update(before) -%}
    {{- return(code) -}}
{% endmacro %}
