{# The Hurst exponent of the last 256 log returns by aggregated variance. #}

{% set changed = changed_from() if is_incremental() %}
{% set scales = [1, 2, 4, 8, 16, 32] %}

with

over_1 as (

    select
        exchange,
        market,
        symbol,
        interval_minutes,
        opened_at,
        bars_in_run,
        log_return as total

    from {{ ref('int_bar_returns') }}

    {% if is_incremental() %} where {{ in_lookback(changed) }} {% endif %}

    order by exchange, market, symbol, interval_minutes, opened_at

),

{# Over four times as many bars the squares of shorter blocks add up, and two lengths of blocks begin. #}

{% for bars in [1, 4, 16, 64] %}

over_{{ 4 * bars }} as (

    select
        exchange,
        market,
        symbol,
        interval_minutes,
        opened_at,
        bars_in_run,
        {% for scale in scales if scale < bars -%}
            {{ repeated_sum('squares_' ~ scale, bars, 4) }} as squares_{{ scale }},
        {% endfor -%}
        {% if bars in scales -%}
            total * total
            {%- for block in range(1, 4) %}
                + power({{ earlier('total', block * bars) }}, 2)
            {%- endfor %} as squares_{{ bars }},
            power(total + {{ earlier('total', bars) }}, 2)
            + power({{ earlier('total', 2 * bars) }} + {{ earlier('total', 3 * bars) }}, 2)
                as squares_{{ 2 * bars }},
        {% endif -%}
        {{ repeated_sum('total', bars, 4) }} as total

    from over_{{ bars }}

),

{% endfor %}

variances as (

    select
        *,
        {% for scale in scales -%}
            (squares_{{ scale }} - total * total / {{ 256 // scale }})
            / {{ (256 // scale - 1) * scale * scale }} as variance_{{ scale }}{{ ',' if not loop.last }}
        {% endfor %}
    from over_256

),

{# The slope of ln(variance of block means) on ln(block length) is 2H - 2. #}

final as (

    select
        exchange,
        market,
        symbol,
        interval_minutes,
        opened_at,
        case
            when
                bars_in_run >= 257
                {%- for scale in scales %}
                    and variance_{{ scale }} > 0
                {%- endfor %}
                then 1 + (
                    0
                    {%- for scale in scales %}
                        + {{ loop.index0 - 2.5 }}e0 * ln(variance_{{ scale }})
                    {%- endfor %}
                ) / (35 * ln(2))
        end as hurst_256

    from variances

)

select * from final

{% if is_incremental() %} where opened_at >= {{ changed }} {% endif %}
