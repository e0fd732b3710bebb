{# The element of a list at a level counted from 0, NULL beyond its end. #}
{% macro level(list, number) %}{{ return(adapter.dispatch('level', 'tapehouse')(list, number)) }}{% endmacro %}

{% macro default__level(list, number) %}{{ list }}[{{ number + 1 if number is number else number ~ ' + 1' }}]{% endmacro %}

{% macro bigquery__level(list, number) %}{{ list }}[safe_ordinal({{ number }} + 1)]{% endmacro %}


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
        {{ (['(' ~ level(quantities, number) ~ ' - ' ~ mean ~ ')'] * exponent) | join(' * ') }}{{ ' + ' if not loop.last }}
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


{# The columns of int_book_snapshots that say how a book looks, in the order in which tables show them. #}
{% macro book_states() %}
    {%- set states = [
        'mid_price', 'level1_imbalance', 'imbalance_5', 'imbalance_10', 'imbalance_20', 'imbalance_50',
        'depth_5', 'depth_20', 'total_bid_depth', 'total_ask_depth', 'depth_ratio', 'quoted_spread_bps', 'microprice_rel',
    ] -%}
    {%- for side in ['bid', 'ask'] -%}
        {%- for name in ['pressure', 'wall_count', 'wall_ratio', 'max_wall', 'volume_std', 'volume_skew'] -%}
            {%- do states.append(side ~ '_' ~ name) -%}
        {%- endfor -%}
    {%- endfor -%}
    {{- return(states) -}}
{% endmacro %}


{# The columns of int_book_snapshots that hold the five best levels, from which flows are computed. #}
{% macro book_levels() %}
    {%- set columns = [] -%}
    {%- for side in ['bid', 'ask'] -%}
        {%- for number in range(5) -%}
            {%- do columns.extend([side ~ '_price_' ~ number, side ~ '_quantity_' ~ number]) -%}
        {%- endfor -%}
    {%- endfor -%}
    {{- return(columns) -}}
{% endmacro %}


{# The window of a symbol over snapshots that the CTE before has sorted; on DuckDB it reads on from one symbol to the next. #}
{% macro sorted_books() %}{{ return(sorted_series('exchange, market, symbol', 'snapshot_at, last_update_id')) }}{% endmacro %}


{# The flow of orders between each snapshot and the one before of its symbol; `days` is a condition on the snapshots, or none. #}
{% macro book_flows(snapshots, days) -%}
    select
        exchange,
        market,
        symbol,
        snapshot_at,
        last_update_id,
        {% for count in [1, 5] -%}
            case
                when is_same_book and {{ minutes_between('previous_snapshot_at', 'snapshot_at') }} <= {{ var('book_flow_minutes') }}
                    then {{ order_flow(count) }}
            end as ofi_{{ count }}{{ ',' if not loop.last }}
        {% endfor %}
    from (

        select
            *,
            lag(snapshot_at) over {{ sorted_books() }} as previous_snapshot_at,
            lag(exchange) over {{ sorted_books() }} = exchange
            and lag(market) over {{ sorted_books() }} = market
            and lag(symbol) over {{ sorted_books() }} = symbol as is_same_book,
            {% for column in book_levels() -%}
                lag({{ column }}) over {{ sorted_books() }} as previous_{{ column }}{{ ',' if not loop.last }}
            {% endfor %}
        from (

            select
                exchange,
                market,
                symbol,
                snapshot_at,
                last_update_id,
                {{ book_levels() | join(',\n                ') }}

            from {{ snapshots }}

            {% if days %} where {{ days }} {% endif %}

            order by exchange, market, symbol, snapshot_at, last_update_id

        ) as levels

    ) as neighbours
{%- endmacro %}


{# The condition of a join of two relations by symbol. #}
{% macro same_book(left, right) -%}
    {{ left }}.exchange = {{ right }}.exchange
    and {{ left }}.market = {{ right }}.market
    and {{ left }}.symbol = {{ right }}.symbol
{%- endmacro %}
