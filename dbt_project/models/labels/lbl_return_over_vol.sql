{# Returns over the next bars in standard deviations of the last 20 returns. #}

{% set changed = changed_from() if is_incremental() %}
{% set horizons = [5, 10, 20, 40] %}

with

returns as (

    select
        exchange,
        market,
        symbol,
        interval_minutes,
        opened_at,
        available_at,
        {% for horizon in horizons -%}
            return_{{ horizon }},
            return_{{ horizon }}_end_at{{ ',' if not loop.last }}
        {% endfor %}
    from {{ ref('lbl_return') }}

    {% if is_incremental() %} where opened_at >= {{ changed }} {% endif %}

),

volatilities as (

    select
        exchange,
        market,
        symbol,
        interval_minutes,
        opened_at,
        volatility_20

    from {{ ref('int_volatility') }}

    {% if is_incremental() %} where opened_at >= {{ changed }} {% endif %}

),

ratios as (

    select
        *,
        {% for horizon in horizons -%}
            {{ safe_divide('return_' ~ horizon, 'volatility_20') }} as return_over_vol_{{ horizon }}
            {{- ',' if not loop.last }}
        {% endfor %}
    from returns
    inner join volatilities using (exchange, market, symbol, interval_minutes, opened_at)

),

final as (

    select
        exchange,
        market,
        symbol,
        interval_minutes,
        opened_at,
        available_at,
        {% for horizon in horizons -%}
            return_over_vol_{{ horizon }},
            case when return_over_vol_{{ horizon }} is not null then return_{{ horizon }}_end_at end
                as return_over_vol_{{ horizon }}_end_at{{ ',' if not loop.last }}
        {% endfor %}
    from ratios

)

select * from final

{% if is_incremental() %} where opened_at >= {{ changed }} {% endif %}
