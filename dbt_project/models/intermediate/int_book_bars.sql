{# Order-book snapshots aggregated to bars: the last one, the mean, and the one in the middle. #}

{% set states = [
    'mid_price', 'level1_imbalance', 'imbalance_5', 'imbalance_10', 'imbalance_20', 'imbalance_50',
    'depth_5', 'depth_20', 'total_bid_depth', 'total_ask_depth', 'depth_ratio', 'quoted_spread_bps', 'microprice_rel',
    'bid_pressure', 'bid_wall_count', 'bid_wall_ratio', 'bid_max_wall', 'bid_volume_std', 'bid_volume_skew',
    'ask_pressure', 'ask_wall_count', 'ask_wall_ratio', 'ask_max_wall', 'ask_volume_std', 'ask_volume_skew',
] %}
{% set averaged = states | reject('in', ['mid_price', 'depth_5', 'depth_20']) | list %}
{% set flows = ['ofi_1', 'ofi_5'] %}
{% set changed = changed_from() if is_incremental() %}

with

snapshots as (

    select
        exchange,
        market,
        symbol,
        {{ bar_opened_at('snapshot_at', 1) }} as minute_at,
        available_at,
        {{ (states + flows) | join(',\n        ') }},
        row_number() over (
            partition by exchange, market, symbol
            order by snapshot_at, last_update_id
        ) as snapshot_number

    from {{ ref('int_book_snapshots') }}

    {% if is_incremental() %} where snapshot_at >= {{ changed }} {% endif %}

),

{# Sums are of decimal numbers, exact in any order, so that minutes add up to bars. #}
minutes as (

    select
        exchange,
        market,
        symbol,
        minute_at,
        max(available_at) as available_at,
        count(*) as snapshot_count,
        max(snapshot_number) as last_number,
        {% for column in averaged + flows -%}
            sum({{ exact_product(column) }}) as {{ column }}_sum,
            count({{ column }}) as {{ column }}_count{{ ',' if not loop.last }}
        {% endfor %}
    from snapshots

    group by exchange, market, symbol, minute_at

),

intervals as (

    {{ rows_of(var('interval_minutes'), 'interval_minutes') }}

),

placed as (

    select
        minutes.*,
        intervals.interval_minutes,
        {{ bar_opened_at('minutes.minute_at', 'intervals.interval_minutes') }} as opened_at

    from minutes
    cross join intervals

),

bars as (

    select
        exchange,
        market,
        symbol,
        interval_minutes,
        opened_at,
        {{ add_minutes('opened_at', 'interval_minutes') }} as closed_at,
        greatest(max(available_at), {{ add_minutes('opened_at', 'interval_minutes') }}) as available_at,
        cast(sum(snapshot_count) as bigint) as snapshot_count,
        max(last_number) as last_number,
        cast(max(last_number) - sum(snapshot_count) + 1 + floor(sum(snapshot_count) / 2) as bigint) as mid_number,
        {% for column in averaged + flows -%}
            cast(sum({{ column }}_sum) as {{ type_float64() }}) as {{ column }}_sum,
            sum({{ column }}_count) as {{ column }}_count{{ ',' if not loop.last }}
        {% endfor %}
    from placed

    group by exchange, market, symbol, interval_minutes, opened_at

),

final as (

    select
        bars.exchange,
        bars.market,
        bars.symbol,
        bars.interval_minutes,
        bars.opened_at,
        bars.closed_at,
        bars.available_at,
        bars.snapshot_count,
        {% for column in states -%}
            latest.{{ column }},
        {% endfor -%}
        {% for column in averaged -%}
            {{ safe_divide('bars.' ~ column ~ '_sum', 'bars.' ~ column ~ '_count') }} as {{ column }}_mean,
            middle.{{ column }} as {{ column }}_mid,
        {% endfor -%}
        {% for column in flows -%}
            bars.{{ column }}_sum as {{ column }},
            {{ safe_divide('bars.' ~ column ~ '_sum', 'latest.depth_20') }} as {{ column }}_rel
            {{- ',' if not loop.last }}
        {% endfor %}
    from bars
    {% for name, number in {'latest': 'last_number', 'middle': 'mid_number'}.items() -%}
        inner join snapshots as {{ name }}
            on bars.exchange = {{ name }}.exchange
            and bars.market = {{ name }}.market
            and bars.symbol = {{ name }}.symbol
            and bars.{{ number }} = {{ name }}.snapshot_number
    {% endfor %}
    {# A bar in which the book was lost or found again is none, if that was known when the bar was. #}
    where
        not exists (
            select 1
            from {{ ref('stg_book_gaps') }} as gaps
            where
                bars.exchange = gaps.exchange
                and bars.market = gaps.market
                and bars.symbol = gaps.symbol
                and bars.opened_at = {{ bar_opened_at('gaps.gap_at', 'bars.interval_minutes') }}
                and bars.available_at >= gaps.available_at
        )

)

select * from final

{% if is_incremental() %} where opened_at >= {{ changed }} {% endif %}
