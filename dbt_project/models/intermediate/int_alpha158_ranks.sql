{# Alpha158 of the close against each close before it: ratio and rank. #}

{% set changed = changed_from() if is_incremental() %}

with

bars as (

    select
        series_key,
        exchange,
        market,
        symbol,
        interval_minutes,
        opened_at,
        close_price,
        bars_in_run

    from {{ ref('int_alpha158_bars') }}

    {% if is_incremental() %} where {{ in_lookback(changed) }} {% endif %}

    order by exchange, market, symbol, interval_minutes, opened_at

),

lags as (

    select
        *,
        {% for age in range(1, 61) -%}
            {{ lag_in_run('close_price', age) }} as close_price_lag_{{ age }}{{ ',' if not loop.last }}
        {% endfor %}
    from bars

),

comparisons as (

    select
        *,
        {% for age in range(1, 60) -%}
            coalesce(sign(close_price - close_price_lag_{{ age }}), 0) as sign_{{ age }}{{ ',' if not loop.last }}
        {% endfor %}
    from lags

),

{# Bars below this one less bars above it. #}
balance_over_5 as (

    select
        *,
        sign_1 + sign_2 + sign_3 + sign_4 as balance_5

    from comparisons

),

{% for shorter, bars in [[5, 10], [10, 20], [20, 30], [30, 60]] -%}
balance_over_{{ bars }} as (

    select
        *,
        balance_{{ shorter }}
        {% for age in range(shorter, bars) -%}
            + sign_{{ age }}
        {% endfor %} as balance_{{ bars }}

    from balance_over_{{ shorter }}

),

{% endfor -%}

final as (

    select
        series_key,
        exchange,
        market,
        symbol,
        interval_minutes,
        opened_at,
        {% for bars in alpha158_windows() -%}
            close_price_lag_{{ bars }} / close_price as roc{{ bars }},
            (least(bars_in_run, {{ bars }}) + 1 + balance_{{ bars }}) / (2 * least(bars_in_run, {{ bars }}))
                as rank{{ bars }}{{ ',' if not loop.last }}
        {% endfor %}
    from balance_over_60

)

select * from final

{% if is_incremental() %} where opened_at >= {{ changed }} {% endif %}
