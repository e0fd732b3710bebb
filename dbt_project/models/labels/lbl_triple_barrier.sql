{# Which of two barriers, some deviations of the last returns from the close, the next bars pass first, and when. #}

{% set changed = changed_from() if is_incremental() %}
{% set horizons = [5, 10, 20, 40] %}
{% set tie = {'true': 1, 'false': -1, 'null': 'null'}[var('label_tie')] %}

with

bars as (

    select
        exchange,
        market,
        symbol,
        interval_minutes,
        opened_at,
        closed_at,
        available_at,
        high_price,
        low_price,
        close_price,
        bars_in_run

    from {{ ref('int_bars') }}

    where not is_gap
        {% if is_incremental() %} and opened_at >= {{ changed }} {% endif %}

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

barriers as (

    select
        *,
        close_price * (1 + {{ var('triple_barrier_deviations') }} * volatility_20) as upper_price,
        close_price * (1 - {{ var('triple_barrier_deviations') }} * volatility_20) as lower_price

    from bars
    inner join volatilities using (exchange, market, symbol, interval_minutes, opened_at)

),

passages as (

    {{ passages_of('barriers', ['volatility_20'], horizons, {
        'upper': ('high_price', '>', 'upper_price'),
        'lower': ('low_price', '<', 'lower_price'),
    }) }}

),

touches as (

    select
        *,
        least(upper_passage, lower_passage) as touch,
        case
            when upper_passage < lower_passage then 1
            when lower_passage < upper_passage then -1
            else {{ tie }}
        end as side

    from passages

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
            {% set is_decided = 'is_decided_' ~ horizon ~ ' and volatility_20 > 0' -%}
            case when {{ is_decided }} then case when touch > {{ horizon }} then 0 else side end end
                as triple_barrier_{{ horizon }},
            case
                when {{ is_decided }} and touch <= {{ horizon }}
                    then {{ add_minutes('closed_at', 'touch * interval_minutes') }}
            end as triple_barrier_{{ horizon }}_touched_at,
            case when {{ is_decided }} then {{ add_minutes('closed_at', horizon ~ ' * interval_minutes') }} end
                as triple_barrier_{{ horizon }}_end_at{{ ',' if not loop.last }}
        {% endfor %}
    from touches

)

select * from final

{% if is_incremental() %} where opened_at >= {{ changed }} {% endif %}
