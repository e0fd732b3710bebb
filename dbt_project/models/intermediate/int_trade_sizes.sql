{# How many trades of a UTC day had which notional, in equal steps of its logarithm. #}

{% set changed = 'cast(' ~ changed_from() ~ ' as date)' if is_incremental() %}

with

trades as (

    select
        exchange,
        market,
        symbol,
        is_aggregate,
        traded_on,
        traded_at,
        available_at,
        cast(floor(ln(greatest(quote_quantity, 1e-12)) * {{ var('large_trade_buckets') }}) as integer) as size_bucket

    from {{ ref('stg_trades') }}

    {% if is_incremental() %} where traded_on >= {{ changed }} {% endif %}

),

final as (

    select
        exchange,
        market,
        symbol,
        is_aggregate,
        traded_on,
        size_bucket,
        count(*) as trade_count,
        min(traded_at) as first_traded_at,
        max(traded_at) as last_traded_at,
        max(available_at) as available_at

    from trades

    group by exchange, market, symbol, is_aggregate, traded_on, size_bucket

)

select * from final

{% if is_incremental() %} where traded_on >= {{ changed }} {% endif %}
