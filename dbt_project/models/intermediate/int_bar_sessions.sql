{# Volume figures that run on: the volume-weighted price of the UTC day and on-balance volume. #}

{% set changed = changed_from() if is_incremental() %}
{% set amounts = ['value', 'traded', 'gain', 'loss'] %}
{% set running = up_to_row('exchange, market, symbol, interval_minutes', 'opened_at') %}

with

bars as (

    select
        exchange,
        market,
        symbol,
        interval_minutes,
        {{ series_key() }} as series,
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
            {{ series_key() }} as series,
            max(opened_at) as opened_at,
            max_by(close_price, opened_at) as close_price,
            0 as volume,
            0 as traded_value,
            0 as bars_in_run,
            cast(null as date) as session_on,
            cast(null as integer) as minute_of_day,
            max_by(close_volume_obv, opened_at) as carried_obv

        from {{ this }}

        where opened_at < {{ changed }} and opened_at >= {{ last_bar(changed) }}

        group by exchange, market, symbol, interval_minutes
    {%- endif %}

    order by exchange, market, symbol, interval_minutes, opened_at

),

starts as (

    select
        *,
        coalesce({{ earlier('series') }} != series, true) as is_first,
        coalesce({{ earlier('series') }} != series or {{ earlier('session_on') }} != session_on, true)
            as is_session_start,
        case when {{ earlier('series') }} = series then sign(close_price - {{ earlier('close_price') }}) else 1 end
            as direction

    from bars

),

amounts as (

    select
        *,
        {{ exact_product('traded_value') }} as value,
        {{ exact_product('volume') }} as traded,
        {{ exact_amount('case when direction > 0 then volume else 0 end') }} + greatest(carried_obv, 0) as gain,
        {{ exact_amount('case when direction < 0 then volume else 0 end') }} + greatest(-carried_obv, 0) as loss

    from starts

),

totals as (

    select
        *,
        {% for column in amounts -%}
            sum({{ column }}) over {{ running }} as {{ column }}_total{{ ',' if not loop.last }}  -- noqa: PRS
        {% endfor %}
    from amounts

),

{# Totals run on from series to series and never fall: the largest at a start is that of the last start. #}
since_start as (

    select
        *,
        {% for column in amounts -%}
            {% set is_start = 'is_session_start' if column in ['value', 'traded'] else 'is_first' -%}
            {% set before = 'case when ' ~ is_start ~ ' then ' ~ column ~ '_total - ' ~ column ~ ' end' -%}
            {{ column }}_total - max({{ before }}) over {{ running }}  -- noqa: PRS
                as {{ column }}_since_start{{ ',' if not loop.last }}
        {% endfor %}
    from totals

),

final as (

    select
        exchange,
        market,
        symbol,
        interval_minutes,
        opened_at,
        close_price,
        {{ exact_amount('gain_since_start - loss_since_start') }} as close_volume_obv,
        case
            when bars_in_run > minute_of_day / interval_minutes and traded_since_start > 0
                then cast(value_since_start as {{ type_float64() }}) / cast(traded_since_start as {{ type_float64() }})
        end as vwap_session

    from since_start

)

select * from final

{% if is_incremental() %} where opened_at >= {{ changed }} {% endif %}
