{# Bars on a complete grid from a series' first to its last bar; a gap is a row without values. #}

{% set values = [
    'open_price', 'high_price', 'low_price', 'close_price', 'volume', 'quote_volume',
    'trade_count', 'taker_buy_volume', 'taker_buy_quote_volume',
] %}
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
        {{ values | join(',\n        ') }},
        opened_at as starts_at

    from {{ ref('int_klines') }}

    {% if is_incremental() -%}
        where opened_at >= {{ changed }}

        union all

        {# The last row that stays, a bar or a gap: its run goes on, and what had arrived with it. #}
        select
            exchange,
            market,
            symbol,
            interval_minutes,
            max(opened_at) as opened_at,
            max_by(available_at, opened_at) as available_at,
            {% for column in values -%}
                null as {{ column }},
            {% endfor -%}
            max_by({{ add_minutes('opened_at', 'interval_minutes * (1 - bars_in_run)') }}, opened_at) as starts_at

        from {{ this }}

        where
            opened_at < {{ changed }}
            and opened_at >= {{ add_minutes(changed, -(var('interval_minutes') | max)) }}

        group by exchange, market, symbol, interval_minutes
    {%- endif %}

),

sorted as (

    select
        *,
        {{ series_key() }} as series_key

    from klines

    order by series_key, opened_at

),

neighbours as (

    select
        *,
        {{ earlier_in_series('opened_at') }} as previous_opened_at,
        {{ later_in_series('opened_at') }} as next_opened_at

    from sorted

),

run_starts as (

    select
        *,
        {% set run_starts_at -%}
            case when previous_opened_at = {{ add_minutes('opened_at', '-interval_minutes') }} then null else starts_at end
        {%- endset -%}
        {{ latest_so_far(run_starts_at) }} as run_opened_at  -- noqa: PRS

    from neighbours

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
        series_key,
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
        {{ latest_so_far('coalesce(available_at, closed_at)') }} as available_at,  -- noqa: PRS
        {{ values | join(',\n        ') }},
        bars_in_run,
        is_gap

    from placed

)

select * from final

{% if is_incremental() %} where opened_at >= {{ changed }} {% endif %}
