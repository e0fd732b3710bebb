{# The predictions of a tree model by SQL alone: its trees as rows of registry.tree_nodes, walked by a recursive query.

   Gives the query's columns, `prediction` (the probability that the label is true, of the last class, or the value of a
   regression) and `probabilities` (of each class, in the order of the registry's `classes`; NULL for a regression).
   The compiled SQL needs neither Python nor this project: any DuckDB client can run it on the warehouse, and BigQuery on a copy of
   registry.tree_nodes beside the imported model, as docs/guides/bigquery-ml.md tells. It is right for thousands of rows; for millions,
   ml_predict is faster by orders. #}
{% macro ml_predict_portable(model, query) -%}
    {%- set found = ml_portable_version(model) -%}
    with recursive
    scored_ as (
        select
            *,
            row_number() over ({{ order_of_rows('queried_') }}) as row_,
            {{ float_list(found.features) }} as features_
        from ({{ query }}) as queried_
    ),

    nodes_ as (
        select *
        from {{ ml_tree_nodes(model) }}
        where model_version = '{{ found.version }}'
    ),

    walked_ as (
        select scored_.row_, nodes_.tree, 0 as node
        from scored_
        cross join nodes_
        where nodes_.tree >= 0 and nodes_.node = 0

        union all

        select
            walked_.row_,
            walked_.tree,
            case
                when {{ is_missing(element('scored_.features_', 'nodes_.feature')) }}
                    then case when nodes_.is_missing_true then nodes_.true_node else nodes_.false_node end
                when {{ element('scored_.features_', 'nodes_.feature') }} <= nodes_.threshold then nodes_.true_node
                else nodes_.false_node
            end as node
        from walked_
        inner join nodes_ on walked_.tree = nodes_.tree and walked_.node = nodes_.node
        inner join scored_ on walked_.row_ = scored_.row_
        where nodes_.feature is not null
    ),

    added_ as (
        select walked_.row_, nodes_.output, nodes_.value
        from walked_
        inner join nodes_ on walked_.tree = nodes_.tree and walked_.node = nodes_.node
        where nodes_.feature is null

        union all

        select scored_.row_, nodes_.output, nodes_.value
        from scored_
        cross join nodes_
        where nodes_.tree = -1
    ),

    {#- Leaf values add up to the same bits in any order; ONNX gives the score as a float32. #}
    scores_ as (
        select row_, output, {{ as_float32('sum(value)') }} as score
        from added_
        group by row_, output
    ),

    {% if found.task == 'multiclass' %}
    likelihoods_ as (
        select row_, output, exp(score - max(score) over (partition by row_)) as likelihood
        from scores_
    ),

    {% endif -%}
    predicted_ as (
        {% if found.task == 'multiclass' %}
        select
            row_,
            array_agg(likelihood / total order by output) as probabilities,
            max(case when output = last_output then likelihood / total end) as prediction
        from (
            select
                row_,
                output,
                likelihood,
                sum(likelihood) over (partition by row_) as total,
                max(output) over () as last_output
            from likelihoods_
        ) as totalled_
        group by row_
        {% elif found.task == 'binary' %}
        select row_, [1 - 1 / (1 + exp(-score)), 1 / (1 + exp(-score))] as probabilities, 1 / (1 + exp(-score)) as prediction
        from scores_
        {% else %}
        select row_, null as probabilities, score as prediction
        from scores_
        {% endif %}
    )

    select
        scored_.{{ all_except(['row_', 'features_']) }},
        predicted_.prediction,
        predicted_.probabilities
    from scored_
    left join predicted_ on scored_.row_ = predicted_.row_
{%- endmacro %}


{# What is to be known of a model whose trees are walked: version, features and task. #}
{% macro ml_portable_version(model) %}{{ return(adapter.dispatch('ml_portable_version', 'tapehouse')(model)) }}{% endmacro %}

{% macro default__ml_portable_version(model) %}
    {%- if not execute -%}{{ return({'version': '', 'features': [], 'task': 'binary'}) }}{%- endif -%}
    {%- set rows = run_query(
        "select model_version, to_json(features)::varchar, task, model_version in (select model_version from registry.tree_nodes) "
        ~ "from registry.active_models where model_name = '" ~ model.identifier ~ "'"
    ) -%}
    {%- if not rows | length -%}
        {{- exceptions.raise_compiler_error(model.identifier ~ ' has no champion: train it first') -}}
    {%- elif not rows[0][3] -%}
        {{- exceptions.raise_compiler_error(model.identifier ~ ' has no trees: use ml_predict for linear models and networks') -}}
    {%- endif -%}
    {{- return({'version': rows[0][0], 'features': fromjson(rows[0][1]), 'task': rows[0][2]}) -}}
{% endmacro %}

{% macro bigquery__ml_portable_version(model) %}
    {%- set known = ml_active_version(model) -%}
    {%- if execute and not known['model_version'] -%}
        {{- exceptions.raise_compiler_error(model.identifier ~ ' was not imported: BigQuery gives nobody the trees of its own models') -}}
    {%- endif -%}
    {{- return({'version': known['model_version'], 'features': known['features'], 'task': known['task']}) -}}
{% endmacro %}


{# Where the trees are: in the registry, on BigQuery in the table `tree_nodes` beside the model. #}
{% macro ml_tree_nodes(model) %}{{ return(adapter.dispatch('ml_tree_nodes', 'tapehouse')(model)) }}{% endmacro %}

{% macro default__ml_tree_nodes(model) %}registry.tree_nodes{% endmacro %}

{% macro bigquery__ml_tree_nodes(model) %}
    {{- return(api.Relation.create(database=model.database, schema=model.schema, identifier='tree_nodes')) -}}
{% endmacro %}


{# An order of a query's rows that is the same whenever it is asked: BigQuery may ask a common table expression more than once. #}
{% macro order_of_rows(rows) %}{{ return(adapter.dispatch('order_of_rows', 'tapehouse')(rows)) }}{% endmacro %}

{% macro default__order_of_rows(rows) %}{% endmacro %}

{% macro bigquery__order_of_rows(rows) %}order by to_json_string({{ rows }}){% endmacro %}


{# A list of columns as float32, the precision in which features are compared with thresholds. #}
{% macro float_list(columns) %}{{ return(adapter.dispatch('float_list', 'tapehouse')(columns)) }}{% endmacro %}

{% macro default__float_list(columns) %}[{{ columns | map('tojson') | join(', ') }}]::float[]{% endmacro %}

{% macro bigquery__float_list(columns) -%}
    [{% for column in columns %}struct(cast(`{{ column }}` as float64) as value){{ ', ' if not loop.last }}{% endfor %}]
{%- endmacro %}


{# An element of float_list, counted from 1. #}
{% macro element(list, position) %}{{ return(adapter.dispatch('element', 'tapehouse')(list, position)) }}{% endmacro %}

{% macro default__element(list, position) %}{{ list }}[{{ position }}]{% endmacro %}

{% macro bigquery__element(list, position) %}{{ list }}[ordinal({{ position }})].value{% endmacro %}


{# Whether a number is NULL or NaN. #}
{% macro is_missing(value) %}{{ return(adapter.dispatch('is_missing', 'tapehouse')(value)) }}{% endmacro %}

{% macro default__is_missing(value) %}coalesce(isnan({{ value }}), true){% endmacro %}

{% macro bigquery__is_missing(value) %}coalesce(is_nan({{ value }}), true){% endmacro %}


{# A number with the precision of a float32, as a double; BigQuery has no float32 and keeps all digits. #}
{% macro as_float32(value) %}{{ return(adapter.dispatch('as_float32', 'tapehouse')(value)) }}{% endmacro %}

{% macro default__as_float32(value) %}cast(cast({{ value }} as float) as double){% endmacro %}

{% macro bigquery__as_float32(value) %}{{ value }}{% endmacro %}
