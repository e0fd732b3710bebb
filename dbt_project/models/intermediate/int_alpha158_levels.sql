{# Alpha158 of the close: its level, dispersion and line over time, and its correlation with the volume. #}

{% set changed = changed_from() if is_incremental() %}
{% set groups = {
    'levels': {
        'variables': ['close_price', 'log_volume', 'position'],
        'products': [['close_price', 'position'], ['close_price', 'log_volume']],
    },
} %}

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
        log_volume,
        bars_in_run as position,
        bars_in_run

    from {{ ref('int_alpha158_bars') }}

    {% if is_incremental() %} where {{ in_lookback(changed) }} {% endif %}

    order by exchange, market, symbol, interval_minutes, opened_at

),

{{ moments_of('bars', groups) }},

lines as (

    select
        *,
        {% for bars in alpha158_windows() -%}
            {{ deviation_of('levels', 'close_price', bars) }} as deviation_{{ bars }},
            nullif({{ deviation_of('levels', 'position', bars) }}, 0) as position_deviation_{{ bars }},
            {{ codeviation_of('levels', 'close_price', 'position', bars) }} as codeviation_{{ bars }}
            {{- ',' if not loop.last }}
        {% endfor %}
    from moments

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
            {{ mean_of('levels', 'close_price', bars) }} / close_price as ma{{ bars }},
            {{ std_of('levels', 'close_price', bars) }} / close_price as std{{ bars }},
            codeviation_{{ bars }} / position_deviation_{{ bars }} / close_price as beta{{ bars }},
            codeviation_{{ bars }} * codeviation_{{ bars }}
            / nullif(deviation_{{ bars }} * position_deviation_{{ bars }}, 0) as rsqr{{ bars }},
            (
                codeviation_{{ bars }} / position_deviation_{{ bars }} * position_total_{{ bars }}
                - close_price_total_{{ bars }}
            ) / levels_count_{{ bars }} / close_price as resi{{ bars }},
            {{ correlation_of('levels', 'close_price', 'log_volume', bars) }} as corr{{ bars }}
            {{- ',' if not loop.last }}
        {% endfor %}
    from lines

)

select * from final

{% if is_incremental() %} where opened_at >= {{ changed }} {% endif %}
