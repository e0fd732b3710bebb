{# The element of a list at a level counted from 0, NULL beyond its end. #}
{% macro level(list, number) %}{{ return(adapter.dispatch('level', 'tapehouse')(list, number)) }}{% endmacro %}

{% macro default__level(list, number) %}{{ list }}[{{ number + 1 if number is number else number ~ ' + 1' }}]{% endmacro %}

{% macro bigquery__level(list, number) %}{{ list }}[safe_offset({{ number }})]{% endmacro %}


{# The sum over the first levels of a list, NULL where it has fewer. #}
{% macro level_sum(list, levels) -%}
    {% for number in range(levels) %}{{ level(list, number) }}{{ ' + ' if not loop.last }}{% endfor %}
{%- endmacro %}


{# (first - second) / (first + second). #}
{% macro imbalance(first, second) -%}
    {{ safe_divide('(' ~ first ~ ') - (' ~ second ~ ')', '(' ~ first ~ ') + (' ~ second ~ ')') }}
{%- endmacro %}


{# Slope of the least-squares line of cumulative quantity on price less best price, over the first levels. #}
{% macro depth_slope(prices, quantities, levels) -%}
    {% set distances = [] %}
    {% set products = [] %}
    {% set squares = [] %}
    {% set totals = [] %}
    {% for number in range(levels) %}
        {% set distance = '(' ~ level(prices, number) ~ ' - ' ~ level(prices, 0) ~ ')' %}
        {% set total = '(' ~ level_sum(quantities, number + 1) ~ ')' %}
        {% do distances.append(distance) %}
        {% do totals.append(total) %}
        {% do products.append(distance ~ ' * ' ~ total) %}
        {% do squares.append(distance ~ ' * ' ~ distance) %}
    {% endfor %}
    {% set covariance = levels ~ ' * (' ~ products | join(' + ') ~ ') - (' ~ distances | join(' + ') ~ ') * (' ~ totals | join(' + ') ~ ')' %}
    {% set variance = levels ~ ' * (' ~ squares | join(' + ') ~ ') - power(' ~ distances | join(' + ') ~ ', 2)' %}
    {{- safe_divide(covariance, variance) -}}
{%- endmacro %}


{# The sum of a power of the quantities' deviations from their mean, over the first levels. #}
{% macro level_moment(quantities, levels, exponent) -%}
    {% set mean = '(' ~ level_sum(quantities, levels) ~ ') / ' ~ levels %}
    {%- for number in range(levels) -%}
        power({{ level(quantities, number) }} - {{ mean }}, {{ exponent }}){{ ' + ' if not loop.last }}
    {%- endfor %}
{%- endmacro %}


{# The quantity in levels that exceed a limit, over the first levels. #}
{% macro wall_sum(quantities, limit, levels) -%}
    {% for number in range(levels) -%}
        case when {{ level(quantities, number) }} > {{ limit }} then {{ level(quantities, number) }} else 0 end
        {{- ' + ' if not loop.last }}
    {%- endfor %}
{%- endmacro %}


{# How many levels exceed a limit, of the first levels; NULL where there are fewer. #}
{% macro wall_count(quantities, limit, levels) -%}
    case
        when {{ level(quantities, levels - 1) }} is not null then
            {% for number in range(levels) -%}
                case when {{ level(quantities, number) }} > {{ limit }} then 1 else 0 end{{ ' + ' if not loop.last }}
            {%- endfor %}
    end
{%- endmacro %}


{# The largest quantity of the first levels. #}
{% macro largest_level(quantities, levels) -%}
    greatest({% for number in range(levels) %}{{ level(quantities, number) }}{{ ', ' if not loop.last }}{% endfor %})
{%- endmacro %}


{# Order-flow imbalance over the first levels since the previous snapshot (Cont, Kukanov and Stoikov 2014), from the columns of both. #}
{% macro order_flow(levels) -%}
    case
        when previous_bid_price_{{ levels - 1 }} is not null and previous_ask_price_{{ levels - 1 }} is not null then
            {% for number in range(levels) -%}
                {{ quantity_if('bid', number, '>=') }} - {{ previous_quantity_if('bid', number, '<=') }}
                - {{ quantity_if('ask', number, '<=') }} + {{ previous_quantity_if('ask', number, '>=') }}
                {{- ' + ' if not loop.last }}
            {% endfor -%}
    end
{%- endmacro %}

{% macro quantity_if(side, number, comparison) -%}
    case
        when {{ side }}_price_{{ number }} {{ comparison }} previous_{{ side }}_price_{{ number }}
            then {{ side }}_quantity_{{ number }}
        else 0
    end
{%- endmacro %}

{% macro previous_quantity_if(side, number, comparison) -%}
    case
        when {{ side }}_price_{{ number }} {{ comparison }} previous_{{ side }}_price_{{ number }}
            then previous_{{ side }}_quantity_{{ number }}
        else 0
    end
{%- endmacro %}
