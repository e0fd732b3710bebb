{#
The rows of a dataset: bars of one interval, features of some families as float32, the label with its end, split and fold.

`families` maps the name of a family's model to its columns; `booleans` are those of them that are true or false. `symbols` is a
list, none for all. `label` is what `label_of` knows. Beside the label stands `return_<horizon>`, where lbl_return has it.
#}
{% macro dataset_of(market, symbols, interval_minutes, families, label, booleans=[]) -%}
    {% set label = label_of(label) -%}
    with bars as (

        select
            exchange,
            market,
            symbol,
            interval_minutes,
            opened_at,
            closed_at,
            available_at

        from {{ ref('int_bars') }}

        where interval_minutes = {{ interval_minutes }} and market = '{{ market }}' and not is_gap
        {%- if symbols is not none %} and symbol in ('{{ symbols | join("', '") }}'){% endif %}

    ),

    {% for family, columns in families.items() -%}
        {{ family }} as (

            select
                exchange,
                market,
                symbol,
                interval_minutes,
                opened_at,
                available_at as {{ family }}_available_at,
                {{ columns | join(',\n                ') }}

            from {{ ref(family) }}

        ),

    {% endfor -%}

    labels as (

        select
            exchange,
            market,
            symbol,
            interval_minutes,
            opened_at,
            {{ label.value }} as {{ label.name }},
            {{ label.end_at }} as label_end_at

        from {{ ref(label.model) }}

    ),

    {% if label.outcome -%}
        outcomes as (

            select
                exchange,
                market,
                symbol,
                interval_minutes,
                opened_at,
                {{ label.outcome }}

            from {{ ref('lbl_return') }}

        ),

    {% endif -%}

    joined as (

        select *

        from bars
        {% for family in families -%}
            inner join {{ family }} using (exchange, market, symbol, interval_minutes, opened_at)
        {% endfor -%}
        left join labels using (exchange, market, symbol, interval_minutes, opened_at)
        {% if label.outcome -%}
            left join outcomes using (exchange, market, symbol, interval_minutes, opened_at)
        {% endif %}
    ),

    parts as (

        {{ time_parts('joined', label.name) }}

    )

    select
        exchange,
        market,
        symbol,
        interval_minutes,
        opened_at,
        closed_at,
        greatest(
            available_at,
            {% for family in families -%}
                {{ family }}_available_at{{ ',' if not loop.last }}
            {% endfor %}
        ) as available_at,
        {% for column in families.values() | sum(start=[]) -%}
            cast({{ 'cast(' ~ column ~ ' as integer)' if column in booleans else column }} as {{ type_float32() }}) as {{ column }},
        {% endfor -%}
        {{ label.name }},
        {% if label.outcome -%}
            {{ label.outcome }},
        {% endif -%}
        label_end_at,
        {{ split_of(label.name, interval_minutes) }} as split,
        {{ fold_of(label.name) }} as fold

    from joined
    cross join parts
{%- endmacro %}


{#
Where a label is found: its type, its model, the expression, the column with its end, and the return over as many bars, if any.

`is_up_<horizon>` is the sign of a return of lbl_return as a boolean, NULL where it is 0. Every other label is a column of a
label model whose name ends in the same number as an `_end_at` column beside it: the horizon in bars.
#}
{% macro label_of(name) %}
    {{- return(sign_label(name) if modules.re.fullmatch('is_up_[0-9]+', name) else labels()[name]) -}}
{% endmacro %}

{% macro sign_label(name) %}
    {%- set outcome = 'return_' ~ horizon_of(name) -%}
    {{- return({
        'name': name,
        'data_type': 'boolean',
        'model': 'lbl_return',
        'value': 'case when ' ~ outcome ~ ' <> 0 then ' ~ outcome ~ ' > 0 end',
        'end_at': outcome ~ '_end_at',
        'outcome': outcome,
    }) -}}
{% endmacro %}


{# Every label that a dataset may have, by name; none while the project is parsed. #}
{% macro labels() %}
    {%- set found = {} -%}
    {%- set returns = models_in('labels').get('lbl_return', {'columns': {}}).columns -%}
    {%- for model, node in models_in('labels').items() -%}
        {%- set ends = {} -%}
        {%- for column in node.columns if column.endswith('_end_at') -%}
            {%- do ends.update({horizon_of(column): column}) -%}
        {%- endfor -%}
        {%- for column in node.columns if not column.endswith('_at') and horizon_of(column) in ends -%}
            {%- set own_end = column ~ '_end_at' -%}
            {%- set outcome = 'return_' ~ horizon_of(column) -%}
            {%- do found.update({column: {
                'name': column,
                'data_type': node.columns[column].data_type,
                'model': model,
                'value': column,
                'end_at': own_end if own_end in node.columns else ends[horizon_of(column)],
                'outcome': outcome if outcome in returns and outcome != column else none,
            }}) -%}
        {%- endfor -%}
    {%- endfor -%}
    {%- for outcome in returns if modules.re.fullmatch('return_[0-9]+', outcome) -%}
        {%- set name = outcome | replace('return', 'is_up') -%}
        {%- do found.update({name: sign_label(name)}) -%}
    {%- endfor -%}
    {{- return(found) -}}
{% endmacro %}


{# The last number among the words of a column's name; none without one. #}
{% macro horizon_of(column) %}
    {{- return(modules.re.findall('(?<=_)[0-9]+(?=_|$)', column) | map('int') | list | last | default(none)) -}}
{% endmacro %}


{# The models of a folder by name, as the project describes them; none while it is parsed. #}
{% macro models_in(folder) %}
    {%- set found = {} -%}
    {%- for node in (graph.nodes.values() if execute else []) if node.resource_type == 'model' and node.fqn[1] == folder -%}
        {%- do found.update({node.name: node}) -%}
    {%- endfor -%}
    {{- return(found) -}}
{% endmacro %}


{#
The columns of a feature model that a machine may learn from: without the keys, without those that have a scale-free twin
(`…_rel`), and without the model's `meta.not_model_ready`, which carry the unit of a price or a quantity or repeat another column.
#}
{% macro model_ready_columns(node) %}
    {%- set found = [] -%}
    {%- set others = ['exchange', 'market', 'symbol', 'interval_minutes', 'opened_at', 'available_at']
        + node.config.meta.get('not_model_ready', []) -%}
    {%- for column in node.columns if column not in others and column ~ '_rel' not in node.columns -%}
        {%- do found.append(column) -%}
    {%- endfor -%}
    {{- return(found) -}}
{% endmacro %}


{# A statement as a string. BigQuery writes strings of several lines in three double quotes, among which single ones stand as they are. #}
{% macro sql_literal(sql) %}{{ return(adapter.dispatch('sql_literal', 'tapehouse')(sql)) }}{% endmacro %}

{% macro default__sql_literal(sql) %}{{ dbt.string_literal(dbt.escape_single_quotes(sql)) }}{% endmacro %}

{% macro bigquery__sql_literal(sql) %}{{ dbt.string_literal(sql) }}{% endmacro %}
