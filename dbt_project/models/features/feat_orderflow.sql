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
{% set shown = ['book_opened_at', 'book_available_at', 'imbalance_5', 'depth_5', 'depth_20'] %}
{% set staleness = var('book_staleness_bars') %}
{% set first_seen_at = add_minutes('opened_at', '-' ~ staleness ~ ' * interval_minutes') %}
{% set changed = changed_from() if is_incremental() %}

with

bars as (

    select
        {{ series | join(',\n        ') }},
        opened_at,
        available_at,
        bars_in_run

    from {{ ref('int_bars') }}

    where not is_gap {% if is_incremental() %} and {{ in_lookback(changed) }} {% endif %}

),

books as (

    select
        {{ series | join(',\n        ') }},
        opened_at as book_opened_at,
        available_at as book_available_at,
        {{ (['mid_price', 'depth_5', 'depth_20'] + states + summaries + flows) | join(',\n        ') }}

    from {{ ref('int_book_bars') }}

    {% if is_incremental() %} where {{ in_lookback(changed) }} {% endif %}

),

{% if is_incremental() %}

earlier as (

    select {{ series | join(', ') }}, max(available_at) as arrived_at

    from {{ this }}

    where opened_at < {{ changed }} and opened_at >= {{ last_bar(changed) }}

    group by {{ series | join(', ') }}

),

{% endif %}

{# What looks back sees the few columns that it needs; the others join afterwards. #}
own_books as (

    select
        bars.*,
        {{ series_key('bars') }} as series_key,
        {% for column in shown -%}
            books.{{ column }} as own_{{ column }}{{ ',' if not loop.last }}
        {% endfor %}
    from bars
    left join books on {{ series_key('bars') }} = {{ series_key('books') }} and bars.opened_at = books.book_opened_at
    order by series_key, bars.opened_at

),

latest_books as (

    select
        *,
        {{ age_of_latest('own_book_opened_at', first_seen_at, staleness) }} as book_age

    from own_books

),

shown_books as (

    select
        *,
        {% for column in shown -%}
            {{ earlier_by('book_age', 'own_' ~ column, staleness) }} as shown_{{ column }}{{ ',' if not loop.last }}
        {% endfor %}
    from latest_books

),

changes as (

    select
        *,
        shown_book_opened_at as book_opened_at,
        {{ latest_so_far('greatest(available_at, coalesce(shown_book_available_at, available_at))') }}  -- noqa: PRS
            as seen_at,
        {% for column in ['imbalance_5', 'depth_5', 'depth_20'] -%}
            {% set previous = lag_in_run('shown_' ~ column, 1) -%}
            {{ previous }} as previous_{{ column }},
            case when book_age = 0 then shown_{{ column }} - {{ previous }} end
                as {{ column }}_change{{ ',' if not loop.last }}
        {% endfor %}
    from shown_books

),

final as (

    select
        {{ series | join(',\n        ') }},
        opened_at,
        greatest(seen_at, {{ 'coalesce(arrived_at, available_at)' if is_incremental() else 'available_at' }})
            as available_at,
        {{ states | join(',\n        ') }},
        quoted_spread_bps / 100 as effective_spread,
        {% for side in ['bid', 'ask'] -%}
            {{ safe_divide(side ~ '_pressure * mid_price / 10000', 'total_' ~ side ~ '_depth') }}
                as {{ side }}_pressure_rel,
        {% endfor -%}
        {% for column in summaries + flows -%}
            case when book_age = 0 then {{ column }} end as {{ column }},
        {% endfor -%}
        {% for levels in [5, 20] -%}
            depth_{{ levels }}_change as depth_velocity_{{ levels }},
            {{ safe_divide('depth_' ~ levels ~ '_change', 'previous_depth_' ~ levels) }}
                as depth_velocity_{{ levels }}_rel,
        {% endfor -%}
        imbalance_5_change as imbalance_change_1

    from changes
    left join books using (exchange, market, symbol, interval_minutes, book_opened_at)
    {% if is_incremental() %} left join earlier using (exchange, market, symbol, interval_minutes) {% endif %}

)

select * from final

{% if is_incremental() %} where opened_at >= {{ changed }} {% endif %}
