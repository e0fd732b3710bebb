{# Alpha158 of the 20 % and 80 % quantiles of the close. #}

{% set changed = changed_from() if is_incremental() %}
{% set levels = ['2e-1', '8e-1'] %}

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
        run_opened_at

    from {{ ref('int_alpha158_bars') }}

    {% if is_incremental() %} where {{ in_lookback(changed) }} {% endif %}

),

quantiles as (

    select
        *,
        {% for bars in alpha158_windows() -%}
            {{ run_quantiles('close_price', bars, levels) }} as closes_{{ bars }}{{ ',' if not loop.last }}
        {% endfor %}
    from bars

    window by_run as (
        partition by exchange, market, symbol, interval_minutes, run_opened_at
        order by opened_at
    )

),

final as (

    select
        series_key,
        exchange,
        market,
        symbol,
        interval_minutes,
        opened_at,
        {% for bars in alpha158_windows() -%}
            {{ quantile_of('closes_' ~ bars, levels, '8e-1') }} / close_price as qtlu{{ bars }},
            {{ quantile_of('closes_' ~ bars, levels, '2e-1') }} / close_price as qtld{{ bars }}
            {{- ',' if not loop.last }}
        {% endfor %}
    from quantiles

)

select * from final

{% if is_incremental() %} where opened_at >= {{ changed }} {% endif %}
