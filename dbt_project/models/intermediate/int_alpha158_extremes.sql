{# Alpha158 of the highest high and the lowest low: their height, and how many bars after the oldest they came first. #}

{% set changed = changed_from() if is_incremental() %}

with

over_1 as (

    select
        series_key,
        exchange,
        market,
        symbol,
        interval_minutes,
        opened_at,
        close_price,
        bars_in_run,
        high_price as high_1,
        low_price as low_1,
        bars_in_run as high_at_1,
        bars_in_run as low_at_1

    from {{ ref('int_alpha158_bars') }}

    {% if is_incremental() %} where {{ in_lookback(changed) }} {% endif %}

    order by exchange, market, symbol, interval_minutes, opened_at

),

{% for step in alpha158_steps() %}

before_{{ step.bars }} as (

    select
        *,
        {% for column in ['high', 'high_at', 'low', 'low_at'] -%}
            {{ lag_in_run(column ~ '_' ~ step.older, step.newer) }} as {{ column }}_before_{{ step.bars }},
        {% endfor -%}
        least(bars_in_run, {{ step.bars }}) as bars_{{ step.bars }}

    from over_{{ step.newer }}

),

over_{{ step.bars }} as (

    select
        *,
        {% for side, reaches in {'high': '>=', 'low': '<='}.items() -%}
            {% for column in [side, side ~ '_at'] -%}
                case
                    when {{ side }}_before_{{ step.bars }} {{ reaches }} {{ side }}_{{ step.newer }}
                        then {{ column }}_before_{{ step.bars }}
                    else {{ column }}_{{ step.newer }}
                end as {{ column }}_{{ step.bars }}{{ ',' if not loop.last }}
            {% endfor -%}
            {{ ',' if not loop.last }}
        {% endfor %}
    from before_{{ step.bars }}

),

{% endfor %}

final as (

    select
        series_key,
        exchange,
        market,
        symbol,
        interval_minutes,
        opened_at,
        {% for bars in alpha158_windows() -%}
            high_{{ bars }} / close_price as max{{ bars }},
            low_{{ bars }} / close_price as min{{ bars }},
            (close_price - low_{{ bars }}) / (high_{{ bars }} - low_{{ bars }} + 1e-12) as rsv{{ bars }},
            (high_at_{{ bars }} - bars_in_run + bars_{{ bars }}) / {{ bars }} as imax{{ bars }},
            (low_at_{{ bars }} - bars_in_run + bars_{{ bars }}) / {{ bars }} as imin{{ bars }},
            (high_at_{{ bars }} - low_at_{{ bars }}) / {{ bars }} as imxd{{ bars }}{{ ',' if not loop.last }}
        {% endfor %}
    from over_60

)

select * from final

{% if is_incremental() %} where opened_at >= {{ changed }} {% endif %}
