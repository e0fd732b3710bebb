{# The price a number of hundredths of a percent above the close. Multiplying first keeps decimal prices exact: 100 + 0.30 % is 100.3. #}
{% macro barrier_price(hundredths) %}close_price * {{ 10000 + hundredths }} / 10000{% endmacro %}


{# The number of the first of the next bars whose price passes a limit, one past the horizon if none does. #}
{% macro first_passage(price, comparison, limit, horizon) -%}
    case
        {%- for bar in range(1, horizon + 1) %}
            when {{ price }}_{{ bar }} {{ comparison }} {{ limit }} then {{ bar }}
        {%- endfor %}
        else {{ horizon + 1 }}
    end
{%- endmacro %}


{# Whether one barrier is passed before the other; a tie inside one bar follows the variable label_tie. #}
{% macro is_first(barrier, opposite, horizon) -%}
    case
        when {{ barrier }} > {{ horizon }} then false
        when {{ barrier }} = {{ opposite }} then {{ var('label_tie') }}
        else {{ barrier }} < {{ opposite }}
    end
{%- endmacro %}
