{# A sum over `times` times as many bars, from the sums over `bars`; with a decay, what lies n bars back counts decay^n. #}
{% macro repeated_sum(total, bars, times, decay=1) -%}
    {{ total }}
    {%- for position in range(1, times) %}
        + {% if decay != 1 %}{{ '%.17e' | format(decay ** (bars * position)) }} * {% endif -%}
        {{ earlier(total, bars * position) }}
    {%- endfor %}
{%- endmacro %}


{# An exchange amount (at most 9 decimals) as a decimal number, whose sums are exact in any order. #}
{% macro exact_amount(column) %}{{ return(adapter.dispatch('exact_amount', 'tapehouse')(column)) }}{% endmacro %}

{% macro default__exact_amount(column) %}cast({{ column }} as decimal(38, 9)){% endmacro %}

{% macro bigquery__exact_amount(column) %}cast({{ column }} as numeric){% endmacro %}


{# A product of amounts as a decimal number with at least 15 decimals, whose sums are exact in any order. #}
{% macro exact_product(column) %}{{ return(adapter.dispatch('exact_product', 'tapehouse')(column)) }}{% endmacro %}

{% macro default__exact_product(column) %}cast({{ column }} as decimal(38, 15)){% endmacro %}

{% macro bigquery__exact_product(column) %}cast({{ column }} as bignumeric){% endmacro %}


{# What `quantile_of` needs of the values in a named window: their quantiles on DuckDB, the values on BigQuery, which has no framed quantiles. #}
{% macro window_quantiles(column, levels, window) %}
    {{- return(adapter.dispatch('window_quantiles', 'tapehouse')(column, levels, window)) -}}
{% endmacro %}

{% macro default__window_quantiles(column, levels, window) -%}
    quantile_cont({{ column }}, [{{ levels | join(', ') }}]) over {{ window }}
{%- endmacro %}

{% macro bigquery__window_quantiles(column, levels, window) %}array_agg({{ column }}) over {{ window }}{% endmacro %}


{# One of the quantiles that `window_quantiles` prepared, linear between the two nearest values. #}
{% macro quantile_of(prepared, levels, level) %}
    {{- return(adapter.dispatch('quantile_of', 'tapehouse')(prepared, levels, level)) -}}
{% endmacro %}

{% macro default__quantile_of(prepared, levels, level) %}{{ prepared }}[{{ levels.index(level) + 1 }}]{% endmacro %}

{% macro bigquery__quantile_of(prepared, levels, level) -%}
    (
        select
            ordered[safe_ordinal(below)]
            + (place - below) * (ordered[safe_ordinal(least(below + 1, last))] - ordered[safe_ordinal(below)])
        from (
            select ordered, last, place, cast(floor(place) as int64) as below
            from (
                select ordered, array_length(ordered) as last, 1 + {{ level }} * (array_length(ordered) - 1) as place
                from (select array_agg(element ignore nulls order by element) as ordered from unnest({{ prepared }}) as element)
            )
        )
    )
{%- endmacro %}


{#
    What `place_of` needs of the values in a named window: on DuckDB the share of the others that lie below the newest, a
    fifth of the time of a framed quantile of 2,016 bars; on BigQuery the values. The newest is at or below a quantile
    where its place is.
#}
{% macro window_places(column, window) %}
    {{- return(adapter.dispatch('window_places', 'tapehouse')(column, window)) -}}
{% endmacro %}

{% macro default__window_places(column, window) %}percent_rank(order by {{ column }}) over {{ window }}{% endmacro %}

{% macro bigquery__window_places(column, window) %}array_agg({{ column }}) over {{ window }}{% endmacro %}


{# The share of the other values of a window that lie below a column, the newest; 0 where there are no others. #}
{% macro place_of(column, prepared) %}
    {{- return(adapter.dispatch('place_of', 'tapehouse')(column, prepared)) -}}
{% endmacro %}

{% macro default__place_of(column, prepared) %}{{ prepared }}{% endmacro %}

{% macro bigquery__place_of(column, prepared) -%}
    (
        select coalesce(safe_divide(countif(element < {{ column }}), count(*) - 1), 0)
        from unnest({{ prepared }}) as element
    )
{%- endmacro %}


{#
    CTEs that end in `name`: recursive averages of columns of a CTE, in closed form. An average of weight w over 4n bars is
    A_4n = A_n + (1 - w)^n · A_n of n bars before + …; each average has `input`, `weight` (of the newest bar) and `bars`.
#}
{% macro averaging(name, source, averages, kept) -%}
    {% set key = ['exchange', 'market', 'symbol', 'interval_minutes', 'opened_at', 'bars_in_run'] %}
    {% set layers = [1, 4, 16, 64, 256] -%}

{{ name }}_over_1 as (

    select
        {{ (key + kept) | join(',\n        ') }},
        {% for average, rule in averages.items() -%}
            {{ '%.17e' | format(rule.weight) }} * {{ rule.input }} as {{ average }}{{ ',' if not loop.last }}
        {% endfor %}
    from {{ source }}

),

{% for bars in layers -%}

{{ name if loop.last else name ~ '_over_' ~ 4 * bars }} as (

    select
        {{ (key + kept) | join(',\n        ') }},
        {% for average, rule in averages.items() -%}
            {{ repeated_sum(average, bars, [4, rule.bars // bars] | min, 1 - rule.weight) }} as {{ average }}
            {{- ',' if not loop.last }}
        {% endfor %}
    from {{ name }}_over_{{ bars }}

){{ ',' if not loop.last }}

{% endfor %}
{%- endmacro %}


{# The last coefficient of the autoregression of an order, from autocorrelations and the coefficients of the order before (Levinson 1946, Durbin 1960). #}
{% macro levinson_coefficient(order) -%}
    {% set above, below = ['autocorrelation_' ~ order], ['1'] %}
    {% for number in range(1, order) %}
        {% set before = 'coefficient_' ~ (order - 1) ~ '_' ~ number %}
        {% do above.append(before ~ ' * autocorrelation_' ~ (order - number)) %}
        {% do below.append(before ~ ' * autocorrelation_' ~ number) %}
    {% endfor %}
    {{- safe_divide(above | join(' - '), below | join(' - ')) -}}
{%- endmacro %}
