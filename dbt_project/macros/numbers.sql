{# The type of prices, quantities and everything computed from them: 64-bit floating point. #}
{% macro type_float64() %}{{ return(adapter.dispatch('type_float64', 'tapehouse')()) }}{% endmacro %}

{% macro default__type_float64() %}double{% endmacro %}

{% macro bigquery__type_float64() %}float64{% endmacro %}


{# Contracts state types by DuckDB's names, of which BigQuery does not know `double`. They are compared before a table is
   made, so the statement that makes it need not state them again. #}
{% macro bigquery__get_assert_columns_equivalent(sql) %}
    {%- for column in model.columns.values() if column.data_type == 'double' -%}
        {%- do column.update({'data_type': type_float64()}) -%}
    {%- endfor -%}
    {{- return(dbt.default__get_assert_columns_equivalent(sql)) -}}
{% endmacro %}

{% macro bigquery__get_table_columns_and_constraints() %}{% endmacro %}


{# The type of a model's features: 32-bit floating point, as ONNX compares them; BigQuery has 64 bits only. #}
{% macro type_float32() %}{{ return(adapter.dispatch('type_float32', 'tapehouse')()) }}{% endmacro %}

{% macro default__type_float32() %}float{% endmacro %}

{% macro bigquery__type_float32() %}float64{% endmacro %}


{# A quotient, NULL where the divisor is 0. #}
{% macro safe_divide(dividend, divisor) %}
    {{- return(adapter.dispatch('safe_divide', 'tapehouse')(dividend, divisor)) -}}
{% endmacro %}

{% macro default__safe_divide(dividend, divisor) %}({{ dividend }}) / nullif({{ divisor }}, 0){% endmacro %}

{% macro bigquery__safe_divide(dividend, divisor) %}safe_divide({{ dividend }}, {{ divisor }}){% endmacro %}


{# A sum of exchange amounts (at most 9 decimals) over a group: exact, so the same in whatever order rows arrive; NULL where a summand is. #}
{% macro exact_sum(column) %}{{ return(adapter.dispatch('exact_sum', 'tapehouse')(column)) }}{% endmacro %}

{% macro default__exact_sum(column) -%}
    case when count({{ column }}) = count(*) then cast(sum(cast({{ column }} as decimal(38, 9))) as double) end
{%- endmacro %}

{% macro bigquery__exact_sum(column) -%}
    case when count({{ column }}) = count(*) then cast(sum(cast({{ column }} as numeric)) as float64) end
{%- endmacro %}


{# The exact sum of the amounts of a group's rows that meet a condition, 0 without any; NULL where an amount is. #}
{% macro exact_sum_where(column, condition) -%}
    case when count({{ column }}) = count(*) then
        cast(coalesce(sum({{ exact_amount('case when ' ~ condition ~ ' then ' ~ column ~ ' end') }}), 0) as {{ type_float64() }})
    end
{%- endmacro %}


{# A sum over a group in a stated order, so that rounding is the same in every run; BigQuery has no such order. #}
{% macro ordered_sum(column, order) %}
    {{- return(adapter.dispatch('ordered_sum', 'tapehouse')(column, order)) -}}
{% endmacro %}

{% macro default__ordered_sum(column, order) %}sum({{ column }} order by {{ order }}){% endmacro %}

{% macro bigquery__ordered_sum(column, order) %}sum({{ column }}){% endmacro %}


{# A floating-point number to partition or group by: BigQuery takes only its text. #}
{% macro groupable(column) %}{{ return(adapter.dispatch('groupable', 'tapehouse')(column)) }}{% endmacro %}

{% macro default__groupable(column) %}{{ column }}{% endmacro %}

{% macro bigquery__groupable(column) %}cast({{ column }} as string){% endmacro %}


{# The values of a group as a list in a stated order; never NULL ones. #}
{% macro ordered_values(column, order) %}
    {{- return(adapter.dispatch('ordered_values', 'tapehouse')(column, order)) -}}
{% endmacro %}

{% macro default__ordered_values(column, order) %}list({{ column }} order by {{ order }}){% endmacro %}

{% macro bigquery__ordered_values(column, order) %}array_agg({{ column }} order by {{ order }}){% endmacro %}


{# The sum over a group of a power, 2 or 3, of an exchange amount: exact but for the 38th digit, so the same in whatever order rows arrive. #}
{% macro exact_power_sum(column, exponent) %}
    {{- return(adapter.dispatch('exact_power_sum', 'tapehouse')(column, exponent)) -}}
{% endmacro %}

{# Two ranges, as 38 digits do not hold both the cube of 0.001 and that of a million. #}
{% macro default__exact_power_sum(column, exponent) -%}
    {%- set power = ([column] * exponent) | join(' * ') -%}
    cast(coalesce(sum(case when {{ column }} < 1000 then cast({{ power }} as decimal(38, {{ 9 * exponent }})) end), 0) as double)
    + cast(coalesce(sum(case when {{ column }} >= 1000 then cast({{ power }} as decimal(38, 3)) end), 0) as double)
{%- endmacro %}

{% macro bigquery__exact_power_sum(column, exponent) -%}
    cast(sum(cast({{ ([column] * exponent) | join(' * ') }} as bignumeric)) as float64)
{%- endmacro %}


{# The sum of the products of consecutive changes of the values in a list; NULL for fewer than three values. #}
{% macro change_product_sum(list) %}{{ return(adapter.dispatch('change_product_sum', 'tapehouse')(list)) }}{% endmacro %}

{% macro default__change_product_sum(list) -%}
    list_sum(list_transform(
        range(2, len({{ list }})),
        lambda place: ({{ list }}[place + 1] - {{ list }}[place]) * ({{ list }}[place] - {{ list }}[place - 1])
    ))
{%- endmacro %}

{% macro bigquery__change_product_sum(list) -%}
    (
        select sum(
            ({{ list }}[ordinal(place + 1)] - {{ list }}[ordinal(place)]) * ({{ list }}[ordinal(place)] - {{ list }}[ordinal(place - 1)])
        )
        from unnest(generate_array(2, array_length({{ list }}) - 1)) as place
    )
{%- endmacro %}
