{# The type of prices, quantities and everything computed from them: 64-bit floating point. #}
{% macro type_float64() %}{{ return(adapter.dispatch('type_float64', 'tapehouse')()) }}{% endmacro %}

{% macro default__type_float64() %}double{% endmacro %}

{% macro bigquery__type_float64() %}float64{% endmacro %}


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


{# The sum of a power, 2 or 3, of the values in a list, from the first to the last. #}
{% macro power_sum(list, exponent) %}{{ return(adapter.dispatch('power_sum', 'tapehouse')(list, exponent)) }}{% endmacro %}

{% macro default__power_sum(list, exponent) -%}
    {% set powers = {2: list, 3: 'list_transform(' ~ list ~ ', lambda value: value * value)'} -%}
    list_inner_product({{ list }}, {{ powers[exponent] }})
{%- endmacro %}

{% macro bigquery__power_sum(list, exponent) -%}
    (select sum(power(value, {{ exponent }})) from unnest({{ list }}) as value)
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
        select sum(({{ list }}[offset(place + 1)] - value) * (value - {{ list }}[offset(place - 1)]))
        from unnest({{ list }}) as value with offset as place
        where place between 1 and array_length({{ list }}) - 2
    )
{%- endmacro %}
