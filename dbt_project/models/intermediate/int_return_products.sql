{# Sums of products of the last 100 log returns with those some bars before. #}

{% set changed = changed_from() if is_incremental() %}
{% set columns = ['log_return', 'square'] %}
{% for number in range(1, 11) %}{% do columns.append('product_' ~ number) %}{% endfor %}

with

returns as (

    select
        exchange,
        market,
        symbol,
        interval_minutes,
        opened_at,
        bars_in_run,
        log_return

    from {{ ref('int_bar_returns') }}

    {% if is_incremental() %} where {{ in_lookback(changed) }} {% endif %}

    order by exchange, market, symbol, interval_minutes, opened_at

),

products as (

    select
        *,
        log_return * log_return as square,
        {% for number in range(1, 11) -%}
            log_return * {{ earlier('log_return', number) }} as product_{{ number }}{{ ',' if not loop.last }}
        {% endfor %}
    from returns

),

over_1 as (

    select
        *,
        {% for column in columns -%}
            {{ column }} as {{ column }}_total{{ ',' if not loop.last }}
        {% endfor %}
    from products

),

{% for bars, times in [(1, 5), (5, 6), (30, 3)] %}

over_{{ bars * times }} as (

    select
        exchange,
        market,
        symbol,
        interval_minutes,
        opened_at,
        bars_in_run,
        {% for column in columns -%}
            {{ column }},
            {{ repeated_sum(column ~ '_total', bars, times) }} as {{ column }}_total{{ ',' if not loop.last }}
        {% endfor %}
    from over_{{ bars }}

),

{% endfor %}

{# Of the last 100 returns: the sums of all, and of the products of the 100 - k pairs that lie k apart. #}

final as (

    select
        exchange,
        market,
        symbol,
        interval_minutes,
        opened_at,
        bars_in_run,
        {% for column in ['log_return', 'square'] -%}
            {{ if_full(101, repeated_sum(column, 1, 10) ~ ' + ' ~ earlier(column ~ '_total', 10)) }}
                as {{ column }}_total_100,
        {% endfor -%}
        {% for number in range(1, 10) -%}
            {{ if_full(101, repeated_sum('product_' ~ number, 1, 10 - number)
                ~ ' + ' ~ earlier('product_' ~ number ~ '_total', 10 - number)) }} as product_total_{{ number }},
        {% endfor -%}
        {{ if_full(101, 'product_10_total') }} as product_total_10,
        {% for number in range(10) -%}
            {{ if_full(101, earlier('log_return', number) ~ ' + ' ~ earlier('log_return', 99 - number)) }}
                as outer_returns_{{ number }}{{ ',' if not loop.last }}
        {% endfor %}
    from over_90

)

select * from final

{% if is_incremental() %} where opened_at >= {{ changed }} {% endif %}
