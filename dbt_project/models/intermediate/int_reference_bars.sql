{# Returns of bars beside those of the reference symbol's bars of the same time. #}

with

bars as (

    select
        exchange,
        market,
        symbol,
        interval_minutes,
        opened_at,
        available_at,
        close_price,
        bars_in_run,
        case when bars_in_run > 1 then close_price / lag(close_price) over by_series - 1 end as return_1,
        case when bars_in_run > 5 then close_price / lag(close_price, 5) over by_series - 1 end as return_5

    from {{ ref('int_bars') }}

    where not is_gap

    window by_series as (partition by exchange, market, symbol, interval_minutes order by opened_at)

),

final as (

    select
        bars.exchange,
        bars.market,
        bars.symbol,
        bars.interval_minutes,
        bars.opened_at,
        bars.available_at,
        bars.return_1,
        bars.close_price / reference.close_price as ratio_to_reference,
        reference.return_1 as reference_return_1,
        reference.return_5 as reference_return_5,
        reference.available_at as reference_available_at,
        least(bars.bars_in_run, coalesce(reference.bars_in_run, 0)) as bars_in_run

    from bars
    left join bars as reference
        on bars.exchange = reference.exchange
        and bars.market = reference.market
        and bars.interval_minutes = reference.interval_minutes
        and bars.opened_at = reference.opened_at
        and reference.symbol = '{{ var("reference_symbol") }}'

)

select * from final
