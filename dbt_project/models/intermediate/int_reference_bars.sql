{# Returns of bars beside those of the reference symbol's bars of the same time. #}

{% set changed = changed_from() if is_incremental() %}

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
        bars_in_run

    from {{ ref('int_bars') }}

    where not is_gap
        {% if is_incremental() %} and {{ in_lookback(changed) }} {% endif %}

    order by exchange, market, symbol, interval_minutes, opened_at

),

returns as (

    select
        *,
        close_price / {{ lag_in_run('close_price', 1) }} - 1 as return_1,
        close_price / {{ lag_in_run('close_price', 5) }} - 1 as return_5

    from bars

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

    from returns as bars
    left join returns as reference
        on bars.exchange = reference.exchange
        and bars.market = reference.market
        and bars.interval_minutes = reference.interval_minutes
        and bars.opened_at = reference.opened_at
        and reference.symbol = '{{ var("reference_symbol") }}'

)

select * from final

{% if is_incremental() %} where opened_at >= {{ changed }} {% endif %}
