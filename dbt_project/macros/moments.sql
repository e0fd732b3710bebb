{# The covariance of two columns over some bars, from the sum of their products and their sums. For columns whose mean is small, such as returns. #}
{% macro covariance_of(product_sum, first_sum, second_sum, bars) -%}
    {{ product_sum }} / {{ bars }} - {{ first_sum }} / {{ bars }} * ({{ second_sum }} / {{ bars }})
{%- endmacro %}


{# The variance of a column over some bars, NULL where it is constant: less than a millionth of the root mean square, squared, is rounding. #}
{% macro variance_of(square_sum, sum, bars) -%}
    case
        when {{ covariance_of(square_sum, sum, sum, bars) }} > 1e-12 * {{ square_sum }} / {{ bars }}
            then {{ covariance_of(square_sum, sum, sum, bars) }}
    end
{%- endmacro %}
