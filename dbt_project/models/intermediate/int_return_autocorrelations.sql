{# Autocorrelation and partial autocorrelation of the last 100 log returns. #}

{% set changed = changed_from() if is_incremental() %}

with

covariances as (

    select
        *,
        case
            when square_total_100 - power(log_return_total_100, 2) / 100 > 1e-12 * square_total_100
                then square_total_100 - power(log_return_total_100, 2) / 100
        end as covariance_0,
        {% for number in range(1, 11) -%}
            product_total_{{ number }} - log_return_total_100 / 100 * (
                2 * log_return_total_100
                {%- for outer in range(number) %}
                    - outer_returns_{{ outer }}
                {%- endfor %}
            ) + {{ 100 - number }} * power(log_return_total_100 / 100, 2) as covariance_{{ number }}
            {{- ',' if not loop.last }}
        {% endfor %}
    from {{ ref('int_return_products') }}

    {% if is_incremental() %} where opened_at >= {{ changed }} {% endif %}

),

order_1 as (

    select
        *,
        {% for number in range(1, 11) -%}
            {{ if_full(101, 'covariance_' ~ number ~ ' / covariance_0') }} as autocorrelation_{{ number }},
        {% endfor -%}
        {{ if_full(101, 'covariance_1 / covariance_0') }} as coefficient_1_1

    from covariances

),

{# Durbin and Levinson: coefficients of the autoregression of each order from those of the order before. #}

{% for order in range(2, 6) %}

last_of_{{ order }} as (

    select
        *,
        {{ levinson_coefficient(order) }} as coefficient_{{ order }}_{{ order }}

    from order_{{ order - 1 }}

),

order_{{ order }} as (

    select
        *,
        {% for number in range(1, order) -%}
            coefficient_{{ order - 1 }}_{{ number }}
            - coefficient_{{ order }}_{{ order }} * coefficient_{{ order - 1 }}_{{ order - number }}
                as coefficient_{{ order }}_{{ number }}{{ ',' if not loop.last }}
        {% endfor %}
    from last_of_{{ order }}

),

{% endfor %}

final as (

    select
        exchange,
        market,
        symbol,
        interval_minutes,
        opened_at,
        {% for number in range(1, 11) -%}
            autocorrelation_{{ number }} as log_return_autocorrelation_{{ number }},
        {% endfor -%}
        {% for number in range(1, 6) -%}
            coefficient_{{ number }}_{{ number }} as log_return_partial_autocorrelation_{{ number }}
            {{- ',' if not loop.last }}
        {% endfor %}
    from order_5

)

select * from final

{% if is_incremental() %} where opened_at >= {{ changed }} {% endif %}
