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


{# A sum over a group, NULL where one of the summands is. #}
{% macro complete_sum(column) %}case when count({{ column }}) = count(*) then sum({{ column }}) end{% endmacro %}
