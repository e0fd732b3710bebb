{# Alpha158 of the volume: level, dispersion, the return weighted with it, and its change against that of the close. #}

{% set changed = changed_from() if is_incremental() %}
{% set groups = {
    'volumes': {'variables': ['volume'], 'products': []},
    'returns': {'variables': ['weighted_return'], 'products': []},
    'ratios': {
        'variables': ['close_ratio', 'log_volume_ratio'],
        'products': [['close_ratio', 'log_volume_ratio']],
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
        volume,
        weighted_return,
        close_ratio,
        log_volume_ratio,
        bars_in_run

    from {{ ref('int_alpha158_bars') }}

    {% if is_incremental() %} where {{ in_lookback(changed) }} {% endif %}

    order by exchange, market, symbol, interval_minutes, opened_at

),

{{ moments_of('bars', groups) }},

final as (

    select
        series_key,
        exchange,
        market,
        symbol,
        interval_minutes,
        opened_at,
        {% for bars in alpha158_windows() -%}
            {{ mean_of('volumes', 'volume', bars) }} / (volume + 1e-12) as vma{{ bars }},
            {{ std_of('volumes', 'volume', bars) }} / (volume + 1e-12) as vstd{{ bars }},
            {{ std_of('returns', 'weighted_return', bars) }}
            / ({{ mean_of('returns', 'weighted_return', bars) }} + 1e-12) as wvma{{ bars }},
            {{ correlation_of('ratios', 'close_ratio', 'log_volume_ratio', bars) }} as cord{{ bars }}
            {{- ',' if not loop.last }}
        {% endfor %}
    from moments

)

select * from final

{% if is_incremental() %} where opened_at >= {{ changed }} {% endif %}
