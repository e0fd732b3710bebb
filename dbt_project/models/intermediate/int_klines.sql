{# Closed bars that were reported: the exchange's own kline, else one rolled up from complete 1-minute klines. #}

{% set changed = changed_from() if is_incremental() %}

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
        {% if is_incremental() %} and opened_at >= {{ changed }} {% endif %}

),

longer_intervals as (

    {{ rows_of(var('interval_minutes') | reject('equalto', 1), 'longer_minutes') }}

),

minutes_in_bars as (

    select
        klines.*,
        longer_intervals.longer_minutes,
        {{ bar_opened_at('klines.opened_at', 'longer_intervals.longer_minutes') }} as bar_opened_at,
        {# A minute without trades repeats the close before it: no price of the longer bar. #}
        case when coalesce(klines.trade_count, 1) > 0 then klines.opened_at end as traded_at

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
        coalesce(min_by(open_price, traded_at), min_by(open_price, opened_at)) as open_price,
        coalesce(max(case when traded_at is not null then high_price end), max(high_price)) as high_price,
        coalesce(min(case when traded_at is not null then low_price end), min(low_price)) as low_price,
        max_by(close_price, opened_at) as close_price,
        {{ exact_sum('volume') }} as volume,
        {{ exact_sum('quote_volume') }} as quote_volume,
        cast({{ exact_sum('trade_count') }} as bigint) as trade_count,
        {{ exact_sum('taker_buy_volume') }} as taker_buy_volume,
        {{ exact_sum('taker_buy_quote_volume') }} as taker_buy_quote_volume

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

final as (

    select * from klines

    union all

    select * from rolled_up_only

)

select * from final
