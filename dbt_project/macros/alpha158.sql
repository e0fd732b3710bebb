{# The windows of Alpha158 in bars. #}
{% macro alpha158_windows() %}{{ return([5, 10, 20, 30, 60]) }}{% endmacro %}


{# How windows are put together: the last `newer` bars and the `older` bars before them. The same additions in
   the same order wherever the table starts. #}
{% macro alpha158_steps() %}
    {{- return([
        {'bars': 2, 'newer': 1, 'older': 1},
        {'bars': 4, 'newer': 2, 'older': 2},
        {'bars': 5, 'newer': 4, 'older': 1},
        {'bars': 10, 'newer': 5, 'older': 5},
        {'bars': 20, 'newer': 10, 'older': 10},
        {'bars': 30, 'newer': 20, 'older': 10},
        {'bars': 60, 'newer': 30, 'older': 30},
    ]) -}}
{% endmacro %}


{# The intervals that have Alpha158 features, from the variable `alpha158_interval_minutes`. #}
{% macro alpha158_intervals() %}
    {%- set wanted = var('alpha158_interval_minutes') -%}
    {%- set known = var('interval_minutes') -%}
    {%- set is_list = wanted is sequence and wanted is not string and wanted is not mapping -%}
    {%- if not is_list or not wanted or wanted | reject('in', known) | list -%}
        {{- exceptions.raise_compiler_error(
            'The variable alpha158_interval_minutes is ' ~ wanted ~ '. It must be a list of one or more of the '
            ~ 'intervals ' ~ known ~ ' of the variable interval_minutes; set it in dbt_project.yml or with --vars.'
        ) -}}
    {%- endif -%}
    {{- return(wanted) -}}
{% endmacro %}


{#
    CTEs that end in `moments`: sums over the last 5, 10, 20, 30 and 60 bars of a run. Each group has `variables`, NULL
    at the same bars, and `products`, pairs of them. Sums are of values less the anchor, the newest value of the window:
    <group>_count, and <variable>_anchor, _total, _square, and <variable>_<variable>_product. As the anchor is one of n
    values, a sum of squares is at most n + 1 times that of the deviations from the mean: the deviations lose two digits
    at most, and are exactly 0 where the values are constant.
#}
{% macro moments_of(source, groups) -%}
moments_over_1 as (

    select
        *,
        {% for group, content in groups.items() -%}
            case when {{ content.variables[0] }} is null then 0 else 1 end as {{ group }}_count_1,
            {% for variable in content.variables -%}
                {{ variable }} as {{ variable }}_anchor_1,
                0e0 as {{ variable }}_total_1,
                0e0 as {{ variable }}_square_1,
            {% endfor -%}
            {% for left, right in content.products -%}
                0e0 as {{ left }}_{{ right }}_product_1,
            {% endfor -%}
        {% endfor -%}
        1 as bars_1

    from {{ source }}

),

{% for step in alpha158_steps() -%}
    {% set bars = step.bars -%}
    {% set newer = step.newer -%}
    {% set older = step.older -%}
before_{{ bars }} as (

    select
        *,
        {% for group, content in groups.items() -%}
            {{ lag_in_run(group ~ '_count_' ~ older, newer, 0) }} as {{ group }}_count_before_{{ bars }},
            {% for variable in content.variables -%}
                coalesce({{ lag_in_run(variable ~ '_anchor_' ~ older, newer) }} - {{ variable }}_anchor_{{ newer }}, 0)
                    as {{ variable }}_shift_{{ bars }},
                {{ lag_in_run(variable ~ '_anchor_' ~ older, newer) }} as {{ variable }}_anchor_before_{{ bars }},
                {{ lag_in_run(variable ~ '_total_' ~ older, newer, 0) }} as {{ variable }}_total_before_{{ bars }},
                {{ lag_in_run(variable ~ '_square_' ~ older, newer, 0) }} as {{ variable }}_square_before_{{ bars }},
            {% endfor -%}
            {% for left, right in content.products -%}
                {{ lag_in_run(left ~ '_' ~ right ~ '_product_' ~ older, newer, 0) }}
                    as {{ left }}_{{ right }}_product_before_{{ bars }},
            {% endfor -%}
        {% endfor -%}
        least(bars_in_run, {{ bars }}) as bars_{{ bars }}

    from moments_over_{{ newer }}

),

{{ 'moments' if loop.last else 'moments_over_' ~ bars }} as (

    select
        *,
        {% for group, content in groups.items() -%}
            {% set count = group ~ '_count_before_' ~ bars -%}
            {% for variable in content.variables -%}
                {% set shift = variable ~ '_shift_' ~ bars -%}
                {% set total = variable ~ '_total_before_' ~ bars -%}
                coalesce({{ variable }}_anchor_{{ newer }}, {{ variable }}_anchor_before_{{ bars }})
                    as {{ variable }}_anchor_{{ bars }},
                {{ variable }}_total_{{ newer }} + ({{ total }} + {{ count }} * {{ shift }})
                    as {{ variable }}_total_{{ bars }},
                {{ variable }}_square_{{ newer }}
                + {{ variable }}_square_before_{{ bars }}
                + {{ shift }} * (2 * {{ total }} + {{ count }} * {{ shift }})
                    as {{ variable }}_square_{{ bars }},
            {% endfor -%}
            {% for left, right in content.products -%}
                {{ left }}_{{ right }}_product_{{ newer }} + (
                    {{ left }}_{{ right }}_product_before_{{ bars }}
                    + {{ left }}_shift_{{ bars }} * {{ right }}_total_before_{{ bars }}
                    + {{ right }}_shift_{{ bars }} * {{ left }}_total_before_{{ bars }}
                    + {{ count }} * {{ left }}_shift_{{ bars }} * {{ right }}_shift_{{ bars }}
                ) as {{ left }}_{{ right }}_product_{{ bars }},
            {% endfor -%}
            {{ group }}_count_{{ newer }} + {{ count }} as {{ group }}_count_{{ bars }}{{ ',' if not loop.last }}
        {% endfor %}
    from before_{{ bars }}

){{ ',' if not loop.last }}

{% endfor %}
{%- endmacro %}


{# The mean of a variable over a window; NULL where the window has no value. #}
{% macro mean_of(group, variable, bars) -%}
    ({{ variable }}_anchor_{{ bars }} + {{ variable }}_total_{{ bars }} / nullif({{ group }}_count_{{ bars }}, 0))
{%- endmacro %}


{# The sum of squared deviations of a variable from its mean over a window. #}
{% macro deviation_of(group, variable, bars) -%}
    ({{ variable }}_square_{{ bars }}
    - {{ variable }}_total_{{ bars }} * {{ variable }}_total_{{ bars }} / nullif({{ group }}_count_{{ bars }}, 0))
{%- endmacro %}


{# The sum of products of the deviations of two variables from their means over a window. #}
{% macro codeviation_of(group, left, right, bars) -%}
    ({{ left }}_{{ right }}_product_{{ bars }}
    - {{ left }}_total_{{ bars }} * {{ right }}_total_{{ bars }} / nullif({{ group }}_count_{{ bars }}, 0))
{%- endmacro %}


{# The standard deviation (ddof 1) of a variable over a window; NULL with fewer than two values. #}
{% macro std_of(group, variable, bars) -%}
    sqrt({{ deviation_of(group, variable, bars) }} / nullif({{ group }}_count_{{ bars }} - 1, 0))
{%- endmacro %}


{# The correlation of two variables over a window; NULL where one is constant. #}
{% macro correlation_of(group, left, right, bars) -%}
    {{ codeviation_of(group, left, right, bars) }}
    / nullif(sqrt({{ deviation_of(group, left, bars) }} * {{ deviation_of(group, right, bars) }}), 0)
{%- endmacro %}


{# What `quantile_of` needs of the values of the last bars of a run. DuckDB slides long frames; of 5 bars a list is
   faster (2.7 M rows: 0.8 s of one core against 7 s). #}
{% macro run_quantiles(column, bars, levels) %}
    {{- return(adapter.dispatch('run_quantiles', 'tapehouse')(column, bars, levels)) -}}
{% endmacro %}

{% macro default__run_quantiles(column, bars, levels) -%}
    {%- if bars > 5 -%}
        {{ framed_run_quantiles(column, bars, levels) }}
    {%- else -%}
        list_aggregate(
            [{{ column }}{% for age in range(1, bars) %}, lag({{ column }}, {{ age }}) over by_run{% endfor %}],
            'quantile_cont', [{{ levels | join(', ') }}]
        )
    {%- endif -%}
{%- endmacro %}

{% macro bigquery__run_quantiles(column, bars, levels) %}{{ framed_run_quantiles(column, bars, levels) }}{% endmacro %}

{% macro framed_run_quantiles(column, bars, levels) -%}
    {{ window_quantiles(column, levels, '(by_run rows between ' ~ (bars - 1) ~ ' preceding and current row)') }}
{%- endmacro %}
