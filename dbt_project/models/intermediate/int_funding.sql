{# Funding rates with their change, their mean over 24 hours and their regime; of each, when it could be known. #}

{% set changed = changed_from() if is_incremental() %}
{% set interval_minutes = var('funding_interval_minutes') %}
{% set windows = {
    'change': 2,
    'ma_24h': 1440 // interval_minutes,
    'regime': var('funding_regime_fundings'),
} %}

with

fundings as (

    select
        exchange,
        market,
        symbol,
        funded_at,
        {{ bar_opened_at(add_minutes('funded_at', 5), interval_minutes) }} as scheduled_at,
        funding_rate,
        available_at

    from {{ ref('stg_funding') }}

    {% if is_incremental() -%}
        where funded_at >= {{ add_minutes(changed, -(model.config.meta.lookback_minutes | int)) }}
    {%- endif %}

),

windows as (

    select
        *,
        funding_rate - lag(funding_rate) over by_symbol as change,
        ({{ sum_over_lags('funding_rate', windows.ma_24h) }}) / {{ windows.ma_24h }} as ma_24h,
        {{ count_over_lags('funding_rate', '<', windows.regime) }} as below_count,
        {{ count_over_lags('funding_rate', '<=', windows.regime) }} as not_above_count,
        {% for name, fundings in windows.items() -%}
            {{ minutes_between('lag(scheduled_at, ' ~ (fundings - 1) ~ ') over by_symbol', 'scheduled_at') }}
            = {{ (fundings - 1) * interval_minutes }} as is_{{ name }}_full,
            max(available_at) over (by_symbol rows between {{ fundings - 1 }} preceding and current row)
                as {{ name }}_available_at{{ ',' if not loop.last }}
        {% endfor %}
    from fundings

    window by_symbol as (partition by exchange, market, symbol order by funded_at)

),

final as (

    select
        exchange,
        market,
        symbol,
        funded_at,
        funding_rate,
        case when is_change_full then change end as funding_rate_change,
        case when is_change_full then change_available_at end as funding_rate_change_available_at,
        case when is_ma_24h_full then ma_24h end as funding_rate_ma_24h,
        case when is_ma_24h_full then ma_24h_available_at end as funding_rate_ma_24h_available_at,
        case
            when not coalesce(is_regime_full, false) then null
            when 100 * below_count >= {{ windows.regime * var('funding_regime_percentiles')[1] }} then 1
            when 100 * not_above_count < {{ windows.regime * var('funding_regime_percentiles')[0] }} then -1
            else 0
        end as funding_regime,
        case when is_regime_full then regime_available_at end as funding_regime_available_at,
        available_at

    from windows

)

select * from final

{% if is_incremental() %} where funded_at >= {{ changed }} {% endif %}
