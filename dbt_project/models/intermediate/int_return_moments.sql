{# Moments of log returns and volatilities over windows, from sums of powers over shorter windows. #}

{% set changed = changed_from() if is_incremental() %}
{% set powers = ['return', 'square', 'cube', 'fourth', 'size'] %}
{% set variances = ['parkinson', 'garman_klass'] %}
{% set layers = [
    {'totals': powers + variances, 'bars': 1, 'times': 5, 'squares': (1, 12)},
    {'totals': powers + variances, 'bars': 5, 'times': 4, 'squares': (12, 4)},
    {'totals': powers + variances, 'bars': 20, 'times': 3, 'squares': (48, 6)},
    {'totals': powers, 'bars': 60, 'times': 4, 'squares': none},
] %}

with

over_1 as (

    select
        exchange,
        market,
        symbol,
        interval_minutes,
        opened_at,
        bars_in_run,
        log_return as return_total_1,
        log_return * log_return as square_total_1,
        log_return * log_return * log_return as cube_total_1,
        log_return * log_return * log_return * log_return as fourth_total_1,
        abs(log_return) as size_total_1,
        parkinson_variance as parkinson_total_1,
        garman_klass_variance as garman_klass_total_1

    from {{ ref('int_bar_returns') }}

    {% if is_incremental() %} where {{ in_lookback(changed) }} {% endif %}

    order by exchange, market, symbol, interval_minutes, opened_at

),

{% for layer in layers %}

over_{{ layer.bars * layer.times }} as (

    select
        *,
        {% if layer.squares -%}
            {% set bars, times = layer.squares -%}
            {{ repeated_sum('square_total_' ~ bars, bars, times) }} as square_total_{{ bars * times }},
        {% endif -%}
        {% for total in layer.totals -%}
            {{ repeated_sum(total ~ '_total_' ~ layer.bars, layer.bars, layer.times) }}
                as {{ total }}_total_{{ layer.bars * layer.times }}{{ ',' if not loop.last }}
        {% endfor %}
    from over_{{ layer.bars }}

),

{% endfor %}

central as (

    select
        *,
        {% for bars in [20, 60, 240] -%}
            {% set mean = 'return_total_' ~ bars ~ ' / ' ~ bars -%}
            {% set square, cube = 'square_total_' ~ bars ~ ' / ' ~ bars, 'cube_total_' ~ bars ~ ' / ' ~ bars -%}
            {{ mean }} as mean_{{ bars }},
            {# A variance below 1e-12 of the mean square is rounding. #}
            case
                when {{ square }} - power({{ mean }}, 2) > 1e-12 * {{ square }} then {{ square }} - power({{ mean }}, 2)
                else 0
            end as variance_{{ bars }},
            {{ cube }} - 3 * {{ mean }} * {{ square }} + 2 * power({{ mean }}, 3) as third_{{ bars }},
            fourth_total_{{ bars }} / {{ bars }} - 4 * {{ mean }} * {{ cube }}
            + 6 * power({{ mean }}, 2) * {{ square }} - 3 * power({{ mean }}, 4) as fourth_{{ bars }}
            {{- ',' if not loop.last }}
        {% endfor %}
    from over_240

),

final as (

    select
        exchange,
        market,
        symbol,
        interval_minutes,
        opened_at,
        {% for bars in [20, 60, 240] -%}
            {% set std = 'sqrt(variance_' ~ bars ~ ' * ' ~ bars ~ ' / ' ~ (bars - 1) ~ ')' -%}
            {{ if_full(bars + 1, 'mean_' ~ bars) }} as log_return_mean_{{ bars }},
            {{ if_full(bars + 1, std) }} as log_return_std_{{ bars }},
            {{ if_full(bars + 1, safe_divide('return_total_1 - mean_' ~ bars, std)) }} as log_return_zscore_{{ bars }},
            {{ if_full(bars + 1, safe_divide(
                'sqrt(' ~ bars * (bars - 1) ~ ') / ' ~ (bars - 2) ~ ' * third_' ~ bars, 'power(variance_' ~ bars ~ ', 15e-1)'
            )) }} as log_return_skew_{{ bars }},
            {{ if_full(bars + 1, safe_divide(
                (bars * bars - 1) ~ ' * fourth_' ~ bars ~ ' - ' ~ 3 * (bars - 1) ** 2 ~ ' * power(variance_' ~ bars ~ ', 2)',
                (bars - 2) * (bars - 3) ~ ' * power(variance_' ~ bars ~ ', 2)'
            )) }} as log_return_kurtosis_{{ bars }},
            {{ if_full(bars + 1, safe_divide('abs(return_total_' ~ bars ~ ')', 'size_total_' ~ bars)) }}
                as trend_strength_{{ bars }},
        {% endfor -%}
        {% for bars in [20, 60] -%}
            {% for range in variances -%}
                {{ if_full(bars, 'sqrt(' ~ range ~ '_total_' ~ bars ~ ' / ' ~ bars ~ ')') }}
                    as {{ range }}_volatility_{{ bars }},
            {% endfor -%}
        {% endfor -%}
        {% for bars in [12, 60, 288] -%}
            {{ if_full(bars + 1, 'sqrt(square_total_' ~ bars ~ ')') }} as realised_volatility_{{ bars }}
            {{- ',' if not loop.last }}
        {% endfor %}
    from central

)

select * from final

{% if is_incremental() %} where opened_at >= {{ changed }} {% endif %}
