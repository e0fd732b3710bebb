{# Recursive averages (exponential, Wilder's) of bars, each from the averages over a quarter of its bars. #}

{% set changed = changed_from() if is_incremental() %}

{# Weight of the newest bar, and bars after which the rest weighs less than 1e-11. #}
{% set averages = {
    'close_ema_12': {'input': 'close_price', 'weight': 2 / 13, 'bars': 256},
    'close_ema_20': {'input': 'close_price', 'weight': 2 / 21, 'bars': 256},
    'close_ema_26': {'input': 'close_price', 'weight': 2 / 27, 'bars': 512},
    'gain_14': {'input': 'gain', 'weight': 1 / 14, 'bars': 512},
    'loss_14': {'input': 'loss', 'weight': 1 / 14, 'bars': 512},
    'true_range_10': {'input': 'true_range', 'weight': 1 / 10, 'bars': 256},
    'true_range_14': {'input': 'true_range', 'weight': 1 / 14, 'bars': 512},
    'upward_move_14': {'input': 'upward_move', 'weight': 1 / 14, 'bars': 512},
    'downward_move_14': {'input': 'downward_move', 'weight': 1 / 14, 'bars': 512},
} %}
{% set averages_of_averages = {
    'macd_signal': {'input': 'macd', 'weight': 2 / 10, 'bars': 128},
    'directional_index_14': {'input': 'directional_index', 'weight': 1 / 14, 'bars': 512},
} %}

with

bars as (

    select
        exchange,
        market,
        symbol,
        interval_minutes,
        opened_at,
        high_price,
        low_price,
        close_price,
        bars_in_run

    from {{ ref('int_bars') }}

    where not is_gap
        {% if is_incremental() %} and {{ in_lookback(changed) }} {% endif %}

    order by exchange, market, symbol, interval_minutes, opened_at

),

changes as (

    select
        *,
        {{ earlier('close_price') }} as previous_close,
        high_price - {{ earlier('high_price') }} as rise,
        {{ earlier('low_price') }} - low_price as fall

    from bars

),

moves as (

    select
        exchange,
        market,
        symbol,
        interval_minutes,
        opened_at,
        close_price,
        bars_in_run,
        case when close_price > previous_close then close_price - previous_close else 0 end as gain,
        case when close_price < previous_close then previous_close - close_price else 0 end as loss,
        greatest(high_price, previous_close) - least(low_price, previous_close) as true_range,
        case when rise > 0 and rise > fall then rise else 0 end as upward_move,
        case when fall > 0 and fall > rise then fall else 0 end as downward_move

    from changes

),

{{ averaging('averaged', 'moves', averages, kept=['close_price']) }},

combined as (

    select
        *,
        close_ema_12 - close_ema_26 as macd,
        {{ safe_divide('upward_move_14', 'true_range_14') }} * 100 as plus_di,
        {{ safe_divide('downward_move_14', 'true_range_14') }} * 100 as minus_di,
        {{ safe_divide('abs(upward_move_14 - downward_move_14)', 'upward_move_14 + downward_move_14') }} * 100
            as directional_index

    from averaged

),

{{ averaging('averaged_again', 'combined', averages_of_averages, kept=[
    'close_price', 'close_ema_12', 'close_ema_20', 'close_ema_26', 'macd', 'gain_14', 'loss_14',
    'true_range_10', 'true_range_14', 'plus_di', 'minus_di',
]) }},

final as (

    select
        exchange,
        market,
        symbol,
        interval_minutes,
        opened_at,
        bars_in_run,
        {{ if_full(256, 'close_ema_12') }} as close_ema_12,
        {{ if_full(256, 'close_ema_20') }} as close_ema_20,
        {{ if_full(512, 'close_ema_26') }} as close_ema_26,
        {{ if_full(512, 'macd') }} as close_macd,
        {{ if_full(639, 'macd_signal') }} as close_macd_signal,
        {{ if_full(513, safe_divide('gain_14', 'gain_14 + loss_14') ~ ' * 100') }} as close_rsi_14,
        {{ if_full(257, 'true_range_10') }} as high_low_close_atr_10,
        {{ if_full(513, 'true_range_14') }} as high_low_close_atr_14,
        {{ if_full(513, 'true_range_14 / close_price * 100') }} as atr_pct_14,
        {{ if_full(513, 'plus_di') }} as plus_di_14,
        {{ if_full(513, 'minus_di') }} as minus_di_14,
        {{ if_full(1024, 'directional_index_14') }} as high_low_close_adx_14

    from averaged_again

)

select * from final

{% if is_incremental() %} where opened_at >= {{ changed }} {% endif %}
