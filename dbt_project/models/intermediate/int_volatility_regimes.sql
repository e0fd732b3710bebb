{# Calm, usual or wild: where the average true range of a bar lies among those of its last bars. #}

{% set low_quantile, high_quantile = var('vol_regime_quantiles') %}
{% set changed = changed_from() if is_incremental() %}

with

{% if is_live() %}

{# As bars close only the newest are placed: cheaper than a window over all. #}
newest as (

    select
        exchange,
        market,
        symbol,
        interval_minutes,
        opened_at,
        bars_in_run,
        atr_pct_14,
        row_number() over () as bar_number

    from {{ ref('int_bar_averages') }}

    where opened_at >= {{ changed }}

),

counted as (

    select
        newest.bar_number,
        {{ safe_divide(
            'count(case when averages.atr_pct_14 < newest.atr_pct_14 then 1 end)', 'count(averages.opened_at) - 1'
        ) }} as place

    from newest
    inner join {{ ref('int_bar_averages') }} as averages
        on {{ series_key('newest') }} = {{ series_key('averages') }}
        and averages.opened_at <= newest.opened_at
        and averages.opened_at > {{ add_minutes('newest.opened_at', '-' ~ var('vol_regime_bars') ~ ' * newest.interval_minutes') }}

    group by newest.bar_number

),

placed as (

    select
        newest.*,
        counted.place

    from newest
    inner join counted on newest.bar_number = counted.bar_number

),

{% else %}

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

prepared as (

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

placed as (

    select
        *,
        {{ place_of('atr_pct_14', 'places') }} as place

    from prepared

),

{% endif %}

final as (

    select
        exchange,
        market,
        symbol,
        interval_minutes,
        opened_at,
        case
            when bars_in_run < {{ var('vol_regime_bars') + 512 }} then null
            when place <= {{ low_quantile }} then 0
            when place <= {{ high_quantile }} then 1
            else 2
        end as vol_regime

    from placed

)

select * from final

{% if is_incremental() %} where opened_at >= {{ changed }} {% endif %}
