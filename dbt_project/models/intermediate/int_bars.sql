{# Bars on a complete grid: the exchange's own kline, else rolled up from complete 1-minute klines; gaps are rows without values. #}

{% set rolled_up_minutes = var('interval_minutes') | reject('equalto', 1) | list %}
{% set values = [
    'open_price', 'high_price', 'low_price', 'close_price', 'volume', 'quote_volume',
    'trade_count', 'taker_buy_volume', 'taker_buy_quote_volume',
] %}

with

klines as (

    select
        exchange,
        market,
        symbol,
        interval_minutes,
        opened_at,
        available_at,
        open_price,
        high_price,
        low_price,
        close_price,
        volume,
        quote_volume,
        trade_count,
        taker_buy_volume,
        taker_buy_quote_volume

    from {{ ref('stg_klines') }}

    where is_closed and interval_minutes in ({{ var('interval_minutes') | join(', ') }})

),

longer_intervals as (

    {{ rows_of(rolled_up_minutes, 'longer_minutes') }}

),

minutes_in_bars as (

    select
        klines.*,
        longer_intervals.longer_minutes,
        {{ bar_opened_at('klines.opened_at', 'longer_intervals.longer_minutes') }} as bar_opened_at

    from klines
    cross join longer_intervals

    where klines.interval_minutes = 1

),

rolled_up as (

    select
        exchange,
        market,
        symbol,
        longer_minutes as interval_minutes,
        bar_opened_at as opened_at,
        max(available_at) as available_at,
        min_by(open_price, opened_at) as open_price,
        max(high_price) as high_price,
        min(low_price) as low_price,
        max_by(close_price, opened_at) as close_price,
        sum(volume) as volume,
        {{ complete_sum('quote_volume') }} as quote_volume,
        cast({{ complete_sum('trade_count') }} as bigint) as trade_count,
        {{ complete_sum('taker_buy_volume') }} as taker_buy_volume,
        {{ complete_sum('taker_buy_quote_volume') }} as taker_buy_quote_volume

    from minutes_in_bars

    group by exchange, market, symbol, longer_minutes, bar_opened_at

    having count(*) = longer_minutes

),

rolled_up_only as (

    select rolled_up.*

    from rolled_up
    left join klines
        on rolled_up.exchange = klines.exchange
        and rolled_up.market = klines.market
        and rolled_up.symbol = klines.symbol
        and rolled_up.interval_minutes = klines.interval_minutes
        and rolled_up.opened_at = klines.opened_at

    where klines.opened_at is null

),

reported as (

    select * from klines

    union all

    select * from rolled_up_only

),
neighbours as (

    select
        *,
        lag(opened_at) over by_series as previous_opened_at,
        lead(opened_at) over by_series as next_opened_at

    from reported

    window by_series as (partition by exchange, market, symbol, interval_minutes order by opened_at)

),

run_starts as (

    select
        *,
        max(
            case
                when previous_opened_at = {{ add_minutes('opened_at', '-interval_minutes') }} then null
                else opened_at
            end
        ) over up_to_bar as run_opened_at

    from neighbours

    window up_to_bar as (
        partition by exchange, market, symbol, interval_minutes
        order by opened_at
        rows between unbounded preceding and current row
    )

),

counted as (

    select
        *,
        cast({{ minutes_between('run_opened_at', 'opened_at') }} / interval_minutes as integer) + 1 as bars_in_run,
        coalesce(
            cast({{ minutes_between('opened_at', 'next_opened_at') }} / interval_minutes as integer), 1
        ) as bars_to_next

    from run_starts

),

grid as (

    {{ repeat_rows('counted', 'bars_to_next') }}

),

placed as (

    select
        exchange,
        market,
        symbol,
        interval_minutes,
        {{ add_minutes('opened_at', 'interval_minutes * repetition') }} as opened_at,
        {{ add_minutes('opened_at', 'interval_minutes * (repetition + 1)') }} as closed_at,
        case when repetition = 0 then available_at end as available_at,
        {% for column in values -%}
            case when repetition = 0 then {{ column }} end as {{ column }},
        {% endfor -%}
        case when repetition = 0 then bars_in_run else 0 end as bars_in_run,
        repetition > 0 as is_gap

    from grid

),

final as (

    select
        exchange,
        market,
        symbol,
        interval_minutes,
        opened_at,
        closed_at,
        coalesce(available_at, closed_at) as available_at,
        {{ values | join(',\n        ') }},
        bars_in_run,
        is_gap

    from placed

)

select * from final
