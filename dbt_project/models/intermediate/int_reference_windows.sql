{# Sums of returns, of the reference's returns and of their products over 60 and 288 bars, each from sums over fewer. #}

{% set changed = changed_from() if is_incremental() %}
{% set sums = ['own', 'reference', 'own_square', 'reference_square', 'product'] %}

with

bars as (

    select * from {{ ref('int_reference_bars') }}

    {% if is_incremental() %} where {{ in_lookback(changed) }} {% endif %}

    order by exchange, market, symbol, interval_minutes, opened_at

),

returns as (

    select
        *,
        {{ earlier('ratio_to_reference') }} as previous_ratio,
        return_1 as own_sum_1,
        reference_return_1 as reference_sum_1,
        return_1 * return_1 as own_square_sum_1,
        reference_return_1 * reference_return_1 as reference_square_sum_1,
        return_1 * reference_return_1 as product_sum_1

    from bars

),

{% for name, bars, times in [('over_12', 1, [12]), ('over_72', 12, [5, 6]), ('over_288', 72, [4])] %}

{{ name }} as (

    select
        *,
        {% for times in times -%}
            {% set last_times = loop.last -%}
            {% for sum in sums -%}
                {{ repeated_sum(sum ~ '_sum_' ~ bars, bars, times) }} as {{ sum }}_sum_{{ bars * times }}
                {{- ',' if not (loop.last and last_times) }}
            {% endfor -%}
        {% endfor %}
    from {{ 'returns' if loop.first else loop.previtem[0] }}

),

{% endfor %}

final as (

    select
        exchange,
        market,
        symbol,
        interval_minutes,
        opened_at,
        available_at,
        reference_available_at,
        return_1,
        ratio_to_reference,
        {{ if_full(2, 'previous_ratio') }} as previous_ratio,
        reference_return_1,
        reference_return_5,
        {% for bars in [60, 288] -%}
            {{ if_full(bars + 1, covariance_of(
                'product_sum_' ~ bars, 'own_sum_' ~ bars, 'reference_sum_' ~ bars, bars
            )) }} as covariance_{{ bars }},
            {{ if_full(bars + 1, variance_of('own_square_sum_' ~ bars, 'own_sum_' ~ bars, bars)) }}
                as variance_{{ bars }},
            {{ if_full(bars + 1, variance_of('reference_square_sum_' ~ bars, 'reference_sum_' ~ bars, bars)) }}
                as reference_variance_{{ bars }}{{ ',' if not loop.last }}
        {% endfor %}
    from over_288

)

select * from final

{% if is_incremental() %} where opened_at >= {{ changed }} {% endif %}
