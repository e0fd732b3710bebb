{# Statistics of log returns: moments, quantiles, memory, volatility, drawdown. #}

{% set changed = changed_from() if is_incremental() %}
{% set windows = [20, 60, 240] %}
{% set levels = [0.1, 0.25, 0.5, 0.75, 0.9] %}
{% set parts = ['int_return_moments', 'int_return_autocorrelations', 'int_return_scales', 'int_garch_variances'] %}
{% set columns = ['hurst_256', 'garch_volatility_1'] %}
{% for number in range(1, 11) %}{% do columns.append('log_return_autocorrelation_' ~ number) %}{% endfor %}
{% for number in range(1, 6) %}{% do columns.append('log_return_partial_autocorrelation_' ~ number) %}{% endfor %}
{% for bars in [12, 60, 288] %}{% do columns.append('realised_volatility_' ~ bars) %}{% endfor %}
{% for range in ['parkinson', 'garman_klass'] -%}
    {% for bars in [20, 60] %}{% do columns.append(range ~ '_volatility_' ~ bars) %}{% endfor %}
{%- endfor %}

with

returns as (

    select
        exchange,
        market,
        symbol,
        interval_minutes,
        opened_at,
        available_at,
        close_price,
        bars_in_run,
        log_return

    from {{ ref('int_bar_returns') }}

    {% if is_incremental() %} where {{ in_lookback(changed) }} {% endif %}

),

{% for part in parts -%}
{{ part }} as (

    select * from {{ ref(part) }}

    {% if is_incremental() %} where opened_at >= {{ changed }} {% endif %}

),

{% endfor -%}

windowed as (

    select
        *,
        {% for bars in windows -%}
            {{ window_quantiles('log_return', levels, 'last_' ~ bars) }} as quantiles_{{ bars }},
        {% endfor -%}
        max(close_price) over last_288 as highest_close_288

    from returns

    window
        {% for bars in windows + [288] -%}
            last_{{ bars }} as (
                partition by exchange, market, symbol, interval_minutes
                order by opened_at
                rows between {{ bars - 1 }} preceding and current row
            ){{ ',' if not loop.last }}
        {% endfor %}
),

final as (

    select
        windowed.exchange,
        windowed.market,
        windowed.symbol,
        windowed.interval_minutes,
        windowed.opened_at,
        windowed.available_at,
        {% for bars in windows -%}
            log_return_mean_{{ bars }},
            log_return_std_{{ bars }},
            log_return_skew_{{ bars }},
            log_return_kurtosis_{{ bars }},
            log_return_zscore_{{ bars }},
            {% for level in levels -%}
                {{ if_full(bars + 1, quantile_of('quantiles_' ~ bars, levels, level)) }}
                    as log_return_q{{ (level * 100) | int }}_{{ bars }},
            {% endfor -%}
            trend_strength_{{ bars }},
        {% endfor -%}
        {{ columns | join(',\n        ') }},
        {{ safe_divide('log_return_mean_60', 'log_return_std_60') }} as sharpe_60,
        {{ if_full(288, 'close_price / highest_close_288 - 1') }} as drawdown_288

    from windowed
    {% for part in parts -%}
        inner join {{ part }} on {{ same_bar('windowed', part) }}
    {% endfor %}

)

select * from final

{% if is_incremental() %} where opened_at >= {{ changed }} {% endif %}
