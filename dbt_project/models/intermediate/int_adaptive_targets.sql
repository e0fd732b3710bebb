{# A threshold that widens and narrows with the average true range of a bar against its trailing median. #}

{% set changed = changed_from() if is_incremental() %}
{% set bars = var('adaptive_median_bars') %}

with

averages as (

    select
        exchange,
        market,
        symbol,
        interval_minutes,
        opened_at,
        atr_pct_14

    from {{ ref('int_bar_averages') }}

    {% if is_incremental() %} where {{ in_lookback(changed) }} {% endif %}

),

medians as (

    select
        *,
        count(atr_pct_14) over last_bars as known_bars,
        {{ window_quantiles('atr_pct_14', [0.5], 'last_bars') }} as latest

    from averages

    window last_bars as (
        partition by exchange, market, symbol, interval_minutes
        order by opened_at
        rows between {{ bars - 1 }} preceding and current row
    )

),

final as (

    select
        exchange,
        market,
        symbol,
        interval_minutes,
        opened_at,
        case
            when known_bars = {{ bars }}
                then {{ var('adaptive_base') }} * {{ safe_divide('atr_pct_14', quantile_of('latest', [0.5], 0.5)) }}
        end as adaptive_target

    from medians

)

select * from final

{% if is_incremental() %} where opened_at >= {{ changed }} {% endif %}
