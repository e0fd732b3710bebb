{# Moving averages and oscillators of finite windows that int_bar_windows lacks. #}

{% set changed = changed_from() if is_incremental() %}

with

bars as (

    select
        exchange,
        market,
        symbol,
        interval_minutes,
        opened_at,
        close_price,
        (high_price + low_price + close_price) / 3 as typical_price,
        volume,
        bars_in_run

    from {{ ref('int_bars') }}

    where not is_gap
        {% if is_incremental() %} and {{ in_lookback(changed) }} {% endif %}

    order by exchange, market, symbol, interval_minutes, opened_at

),

flows as (

    select
        *,
        typical_price - {{ earlier('typical_price') }} as typical_change,
        sign(close_price - {{ earlier('close_price') }}) * volume as signed_volume

    from bars

),

signed_flows as (

    select
        *,
        {# Smaller changes of a mean of three prices are rounding. #}
        case when typical_change > 1e-12 * typical_price then typical_price * volume else 0 end as inflow,
        case when typical_change < -1e-12 * typical_price then typical_price * volume else 0 end as outflow

    from flows

),

first_totals as (

    select
        *,
        {{ repeated_sum('close_price', 1, 10) }} as close_total_10,
        {{ repeated_sum('inflow', 1, 7) }} as inflow_7,
        {{ repeated_sum('outflow', 1, 7) }} as outflow_7,
        {{ repeated_sum('signed_volume', 1, 10) }} as signed_volume_10,
        {{ repeated_sum('volume', 1, 10) }} as volume_10,
        {% for bars in range(1, 14) -%}
            {{ earlier('typical_price', bars) }} - typical_price
                as typical_gap_{{ bars }}{{ ',' if not loop.last }}
        {% endfor %}
    from signed_flows

),

second_totals as (

    select
        *,
        {{ repeated_sum('close_total_10', 10, 2) }} as close_total_20,
        {{ repeated_sum('close_total_10', 10, 5) }} as close_total_50,
        {{ repeated_sum('inflow_7', 7, 2) }} as inflow_14,
        {{ repeated_sum('inflow_7 + outflow_7', 7, 2) }} as flow_14,
        {{ repeated_sum('signed_volume_10', 10, 2) }} as signed_volume_20,
        {{ repeated_sum('volume_10', 10, 2) }} as volume_20,
        (
            typical_gap_1
            {%- for bars in range(2, 14) %}
                + typical_gap_{{ bars }}{% endfor %}
        ) / 14 as mean_gap

    from first_totals

),

third_totals as (

    select
        *,
        {{ repeated_sum('close_total_20', 20, 3) }} as close_total_60,
        {{ repeated_sum('close_total_50', 50, 4) }} as close_total_200,
        (
            abs(mean_gap)
            {%- for bars in range(1, 14) %}
                + abs(typical_gap_{{ bars }} - mean_gap){% endfor %}
        ) / 14 as mean_deviation

    from second_totals

),

final as (

    select
        exchange,
        market,
        symbol,
        interval_minutes,
        opened_at,
        {% for bars in [10, 20, 50, 60, 200] -%}
            {{ if_full(bars, 'close_total_' ~ bars ~ ' / ' ~ bars) }} as close_sma_{{ bars }},
        {% endfor -%}
        {{ if_full(14, 'coalesce(' ~ safe_divide('-mean_gap', '15e-3 * mean_deviation') ~ ', 0)') }}
            as high_low_close_cci_14,
        {# TA-Lib's answer is 0 where less than one unit of quote currency flowed. #}
        {{ if_full(15, 'case when flow_14 < 1 then 0 else inflow_14 / flow_14 * 100 end') }}
            as high_low_close_volume_mfi_14,
        {{ if_full(21, safe_divide('signed_volume_20', 'volume_20')) }} as close_volume_obv_rel

    from third_totals

)

select * from final

{% if is_incremental() %} where opened_at >= {{ changed }} {% endif %}
