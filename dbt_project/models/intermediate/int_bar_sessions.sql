{# Volume figures that run on: the volume-weighted price of the UTC day and on-balance volume. #}

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
        volume,
        (high_price + low_price + close_price) / 3 * volume as traded_value,
        bars_in_run,
        cast(opened_at as date) as session_on,
        cast(extract(hour from opened_at) * 60 + extract(minute from opened_at) as integer) as minute_of_day,
        {{ exact_amount('0') }} as carried_obv

    from {{ ref('int_bars') }}

    where not is_gap

    {% if is_incremental() -%}
        and opened_at >= {{ changed }}

        union all

        {# The last bar that stays: its on-balance volume goes on. #}
        select
            exchange,
            market,
            symbol,
            interval_minutes,
            max(opened_at) as opened_at,
            max_by(close_price, opened_at) as close_price,
            0 as volume,
            0 as traded_value,
            0 as bars_in_run,
            cast(null as date) as session_on,
            cast(null as integer) as minute_of_day,
            max_by(close_volume_obv, opened_at) as carried_obv

        from {{ this }}

        where opened_at < {{ changed }}

        group by exchange, market, symbol, interval_minutes
    {%- endif %}

),

directions as (

    select
        *,
        coalesce(sign(close_price - lag(close_price) over by_series), 1) * volume as signed_volume

    from bars

    window by_series as (partition by exchange, market, symbol, interval_minutes order by opened_at)

),

totals as (

    select
        *,
        sum({{ exact_product('traded_value') }}) over in_session as session_value,
        sum({{ exact_product('volume') }}) over in_session as session_volume,
        sum(carried_obv + {{ exact_amount('signed_volume') }}) over since_start as close_volume_obv

    from directions

    window
        since_start as (
            partition by exchange, market, symbol, interval_minutes
            order by opened_at
            rows between unbounded preceding and current row
        ),
        in_session as (
            partition by exchange, market, symbol, interval_minutes, session_on
            order by opened_at
            rows between unbounded preceding and current row
        )

),

final as (

    select
        exchange,
        market,
        symbol,
        interval_minutes,
        opened_at,
        close_price,
        close_volume_obv,
        case
            when bars_in_run > minute_of_day / interval_minutes and session_volume > 0
                then cast(session_value as {{ type_float64() }}) / cast(session_volume as {{ type_float64() }})
        end as vwap_session

    from totals

)

select * from final

{% if is_incremental() %} where opened_at >= {{ changed }} {% endif %}
