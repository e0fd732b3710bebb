{# What the trades of a bar show. The kline's taker volumes stand in where no trades landed. #}

{% set key = ['exchange', 'market', 'symbol', 'interval_minutes', 'opened_at'] %}
{% set windows = [
    'amihud_20', 'amihud_60', 'mean_quote_volume_20', 'mean_quote_volume_60', 'mean_volume_60', 'mean_trade_count_60',
    'net_volume_288', 'total_volume_288', 'kyle_lambda', 'trade_imbalance_autocorrelation_1',
] %}
{% set changed = changed_from() if is_incremental() %}

with

flows as (

    select
        {{ key | join(',\n        ') }},
        available_at,
        bars_in_run,
        {{ bar_opened_at('opened_at', 1440) }} as day_at,
        close_price,
        buy_volume,
        sell_volume,
        total_volume,
        net_volume,
        trade_imbalance

    from {{ ref('int_trade_flows') }}

    {% if is_incremental() %} where {{ in_lookback(changed) }} {% endif %}

),

trades as (

    select
        {{ key | join(',\n        ') }},
        trade_count,
        large_trade_count,
        {{ safe_divide('large_quote_volume', 'quote_volume') }} as large_trade_ratio,
        trade_size_mean,
        trade_size_std,
        trade_size_skew,
        {{ safe_divide('last_price - first_price', 'volume') }} as price_impact,
        roll_spread

    from {{ ref('int_trade_bars') }}

    {% if is_incremental() %} where opened_at >= {{ changed }} {% endif %}

),

windows as (

    select
        {{ key | join(',\n        ') }},
        {{ windows | join(',\n        ') }}

    from {{ ref('int_trade_windows') }}

    {% if is_incremental() %} where opened_at >= {{ changed }} {% endif %}

),

vpins as (

    select * from {{ ref('int_vpin') }}

    {% if is_incremental() %} where completed_at >= {{ add_minutes(changed, -1440) }} {% endif %}

),

with_day as (

    select * from (
        select
            *,
            bars_in_run * interval_minutes > {{ minutes_between('day_at', 'opened_at') }}
            and count(net_volume) over today = count(*) over today as is_day_known,
            cast(sum({{ exact_amount('net_volume') }}) over today as {{ type_float64() }}) as net_volume_day,
            cast(sum({{ exact_amount('total_volume') }}) over today as {{ type_float64() }}) as total_volume_day

        from flows

        window today as (
            partition by exchange, market, symbol, interval_minutes, day_at
            order by opened_at
            rows between unbounded preceding and current row
        )
    ) as bars

    {# The bars before were read for the sums of the day. #}
    {% if is_incremental() %} where opened_at >= {{ changed }} {% endif %}

),

with_vpin as (

    {{ as_of_join(
        'with_day', 'vpins', ['exchange', 'market', 'symbol'], 'completed_at', ['vpin'], 1440
    ) }}

),

final as (

    select
        {{ key | join(',\n        ') }},
        available_at,
        buy_volume,
        sell_volume,
        net_volume,
        trade_imbalance,
        {{ safe_divide('buy_volume', 'sell_volume') }} as buy_sell_ratio,
        {{ safe_divide('buy_volume', 'total_volume') }} as taker_buy_ratio,
        trade_imbalance_autocorrelation_1,
        large_trade_count,
        large_trade_count / trade_count as large_trade_count_rel,
        large_trade_ratio,
        trade_size_mean,
        {{ safe_divide('trade_size_mean * mean_trade_count_60', 'mean_volume_60') }} - 1 as trade_size_mean_rel,
        trade_size_std,
        {{ safe_divide('trade_size_std', 'trade_size_mean') }} as trade_size_std_rel,
        trade_size_skew,
        trade_count / (interval_minutes * 60) as trade_frequency,
        {{ safe_divide('trade_count', 'mean_trade_count_60') }} - 1 as trade_frequency_rel,
        price_impact,
        price_impact * mean_volume_60 / close_price as price_impact_rel,
        kyle_lambda,
        kyle_lambda * mean_volume_60 / close_price as kyle_lambda_rel,
        roll_spread,
        roll_spread / close_price as roll_spread_rel,
        amihud_20,
        amihud_20 * mean_quote_volume_20 as amihud_20_rel,
        amihud_60,
        amihud_60 * mean_quote_volume_60 as amihud_60_rel,
        case when is_day_known then net_volume_day end as cumulative_delta_day,
        case when is_day_known then {{ safe_divide('net_volume_day', 'total_volume_day') }} end
            as cumulative_delta_day_rel,
        net_volume_288 as cumulative_delta_288,
        {{ safe_divide('net_volume_288', 'total_volume_288') }} as cumulative_delta_288_rel,
        vpin

    from with_vpin
    left join trades using (exchange, market, symbol, interval_minutes, opened_at)
    left join windows using (exchange, market, symbol, interval_minutes, opened_at)

)

select * from final

{% if is_incremental() %} where opened_at >= {{ changed }} {% endif %}
