{# Calm, usual or wild: where the average true range of a bar lies among those of its last bars. #}

{% set low_quantile, high_quantile = var('vol_regime_quantiles') %}
{% set changed = changed_from() if is_incremental() %}

with

averages as (

    select
        exchange,
        market,
        symbol,
        interval_minutes,
        opened_at,
        bars_in_run,
        atr_pct_14

    from {{ ref('int_bar_averages') }}

    {% if is_incremental() %} where {{ in_lookback(changed) }} {% endif %}

),

placed as (

    select
        *,
        {{ window_places('atr_pct_14', 'last_bars') }} as places

    from averages

    window last_bars as (
        partition by exchange, market, symbol, interval_minutes
        order by opened_at
        rows between {{ var('vol_regime_bars') - 1 }} preceding and current row
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
            when bars_in_run < {{ var('vol_regime_bars') + 512 }} then null
            when {{ place_of('atr_pct_14', 'places') }} <= {{ low_quantile }} then 0
            when {{ place_of('atr_pct_14', 'places') }} <= {{ high_quantile }} then 1
            else 2
        end as vol_regime

    from placed

)

select * from final

{% if is_incremental() %} where opened_at >= {{ changed }} {% endif %}
