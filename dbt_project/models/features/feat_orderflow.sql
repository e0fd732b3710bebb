{# What the order book of a bar shows: without a snapshot in the bar, the book of an earlier one until that is stale. #}

{% set series = ['exchange', 'market', 'symbol', 'interval_minutes'] %}
{% set states = [
    'level1_imbalance', 'imbalance_5', 'imbalance_10', 'imbalance_20', 'imbalance_50',
    'bid_wall_count', 'bid_wall_ratio', 'bid_max_wall', 'ask_wall_count', 'ask_wall_ratio', 'ask_max_wall',
    'quoted_spread_bps', 'bid_volume_std', 'bid_volume_skew', 'ask_volume_std', 'ask_volume_skew',
    'total_bid_depth', 'total_ask_depth', 'depth_ratio', 'microprice_rel', 'bid_pressure', 'ask_pressure',
] %}
{% set flows = ['ofi_1', 'ofi_5', 'ofi_1_rel', 'ofi_5_rel'] %}
{% set summaries = [] %}
{% for state in states %}{% do summaries.extend([state ~ '_mean', state ~ '_mid']) %}{% endfor %}
{% set changed = changed_from() if is_incremental() %}

with

bars as (

    select
        {{ series | join(',\n        ') }},
        opened_at,
        available_at,
        bars_in_run

    from {{ ref('int_bars') }}

    where not is_gap
        {% if is_incremental() %} and {{ in_lookback(changed) }} {% endif %}

),

books as (

    select
        {{ series | join(',\n        ') }},
        opened_at as book_opened_at,
        available_at as book_available_at,
        mid_price,
        depth_5,
        depth_20,
        {{ (states + summaries + flows) | join(',\n        ') }}

    from {{ ref('int_book_bars') }}

    {% if is_incremental() %} where {{ in_lookback(changed) }} {% endif %}

),

{% if is_incremental() %}

earlier as (

    select
        {{ series | join(',\n        ') }},
        max(available_at) as arrived_at

    from {{ this }}

    where opened_at < {{ changed }} and opened_at >= {{ last_bar(changed) }}

    group by {{ series | join(', ') }}

),

{% endif %}

latest_books as (

    select
        bars.*,
        case
            when {{ minutes_between('max(books.book_opened_at) over recent_bars', 'bars.opened_at') }}
                <= {{ var('book_staleness_bars') }} * bars.interval_minutes
                then max(books.book_opened_at) over recent_bars
        end as book_opened_at

    from bars
    left join books
        on bars.exchange = books.exchange
        and bars.market = books.market
        and bars.symbol = books.symbol
        and bars.interval_minutes = books.interval_minutes
        and bars.opened_at = books.book_opened_at

    window recent_bars as (
        partition by bars.exchange, bars.market, bars.symbol, bars.interval_minutes
        order by bars.opened_at
        rows between {{ var('book_staleness_bars') }} preceding and current row
    )

),

{# Windows see the few columns that they need; the others join afterwards. #}
changes as (

    select
        latest_books.*,
        {{ arrived_with_all_before('greatest(available_at, coalesce(book_available_at, available_at))') }} as seen_at,
        {% for column in ['imbalance_5', 'depth_5', 'depth_20'] -%}
            lag(books.{{ column }}) over by_series as previous_{{ column }},
            case when book_opened_at = opened_at and bars_in_run > 1 then books.{{ column }} end
            - lag(books.{{ column }}) over by_series as {{ column }}_change{{ ',' if not loop.last }}
        {% endfor %}
    from latest_books
    left join books using (exchange, market, symbol, interval_minutes, book_opened_at)

    window by_series as (partition by exchange, market, symbol, interval_minutes order by opened_at)

),

final as (

    select
        {{ series | join(',\n        ') }},
        opened_at,
        greatest(
            seen_at,
            {{ 'coalesce(arrived_at, available_at)' if is_incremental() else 'available_at' }}
        ) as available_at,
        {{ states | join(',\n        ') }},
        quoted_spread_bps / 100 as effective_spread,
        {% for side in ['bid', 'ask'] -%}
            {{ safe_divide(side ~ '_pressure * mid_price / 10000', 'total_' ~ side ~ '_depth') }}
                as {{ side }}_pressure_rel,
        {% endfor -%}
        {% for column in summaries + flows -%}
            case when book_opened_at = opened_at then {{ column }} end as {{ column }},
        {% endfor -%}
        {% for levels in [5, 20] -%}
            {% set change = 'depth_' ~ levels ~ '_change' -%}
            {{ change }} as depth_velocity_{{ levels }},
            {{ safe_divide(change, 'previous_depth_' ~ levels) }} as depth_velocity_{{ levels }}_rel,
        {% endfor -%}
        imbalance_5_change as imbalance_change_1

    from changes
    left join books using (exchange, market, symbol, interval_minutes, book_opened_at)
    {% if is_incremental() %} left join earlier using (exchange, market, symbol, interval_minutes) {% endif %}

)

select * from final

{% if is_incremental() %} where opened_at >= {{ changed }} {% endif %}
