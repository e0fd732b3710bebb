{# A bar beside the reference symbol's, the market's and, as known then, indices and commodities. #}

{% set changed = changed_from() if is_incremental() %}

with

windows as (

    select * from {{ ref('int_reference_windows') }}

    {% if is_incremental() %} where opened_at >= {{ changed }} {% endif %}

),

breadth as (

    select
        exchange,
        market,
        interval_minutes,
        opened_at,
        available_at as breadth_available_at,
        market_breadth

    from {{ ref('int_breadth') }}

    {% if is_incremental() %} where opened_at >= {{ changed }} {% endif %}

),

macro_moments as (

    select
        available_at,
        spx_return_1h,
        dxy_return_1h,
        gold_return_1h,
        vix_change_1h

    from {{ ref('int_macro_moments') }}

    {% if is_incremental() %} where available_at >= {{ changed }} {% endif %}

),

joined as (

    select *

    from windows
    left join breadth using (exchange, market, interval_minutes, opened_at)
    left join macro_moments using (available_at)

),

final as (

    select
        exchange,
        market,
        symbol,
        interval_minutes,
        opened_at,
        greatest(
            available_at,
            coalesce(reference_available_at, available_at),
            coalesce(breadth_available_at, available_at)
        ) as available_at,
        ratio_to_reference,
        ratio_to_reference - previous_ratio as ratio_to_reference_change,
        ratio_to_reference / previous_ratio - 1 as ratio_to_reference_change_rel,
        {% for bars in [60, 288] -%}
            covariance_{{ bars }} / reference_variance_{{ bars }} as beta_{{ bars }},
            covariance_{{ bars }} / sqrt(variance_{{ bars }} * reference_variance_{{ bars }})
                as correlation_{{ bars }},
        {% endfor -%}
        reference_return_1,
        reference_return_5,
        market_breadth,
        spx_return_1h,
        dxy_return_1h,
        gold_return_1h,
        vix_change_1h,
        case
            when spx_return_1h is null or vix_change_1h is null then null
            when spx_return_1h > 0 and vix_change_1h < 0 then 1
            when spx_return_1h < 0 and vix_change_1h > 0 then -1
            else 0
        end as risk_regime

    from joined

)

select * from final

{% if is_incremental() %} where opened_at >= {{ changed }} {% endif %}
