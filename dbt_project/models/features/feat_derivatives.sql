{# Funding, open interest, liquidations and basis of a future, as known when a bar became available. #}

{% set changed = changed_from() if is_incremental() %}
{% set symbol_key = ['exchange', 'market', 'symbol'] %}
{% set staleness_minutes = var('staleness_minutes') %}
{% set funding_features = ['funding_rate_ma_24h', 'funding_rate_change', 'funding_regime'] %}
{% set joins = [
    ('funding', ref('int_funding'), symbol_key, 'funded_at', ['funding_rate'] + funding_features + [
        'funding_rate_ma_24h_available_at', 'funding_rate_change_available_at', 'funding_regime_available_at',
    ]),
    ('open_interest', ref('stg_open_interest'), symbol_key, 'measured_at', ['open_interest']),
    ('mark_prices', ref('stg_mark_prices'), symbol_key, 'marked_at', ['mark_price', 'index_price']),
    ('liquidations', ref('stg_liquidations'), ['exchange', 'market'], 'liquidated_at', ['liquidated_at']),
] %}

with

bars as (

    select
        exchange,
        market,
        symbol,
        interval_minutes,
        opened_at,
        available_at,
        bars_in_run

    from {{ ref('int_bars') }}

    where not is_gap
        {% if is_incremental() %} and {{ in_lookback(changed) }} {% endif %}

),

liquidation_bars as (

    select
        exchange,
        market,
        symbol,
        interval_minutes,
        opened_at,
        liquidations_long as landed_long,
        liquidations_short as landed_short

    from {{ ref('int_liquidation_bars') }}

    {% if is_incremental() %} where opened_at >= {{ changed }} {% endif %}

),

{% for name, series, keys, event_at, columns in joins %}

known_{{ name }} as (

    select * from {{ series }}

    {% if is_incremental() -%}
        where {{ event_at }} >= {{ add_minutes(changed, -staleness_minutes[name] - 2 * (var('interval_minutes') | max)) }}
    {%- endif %}

),

with_{{ name }} as (

    {{ as_of_join(
        'bars' if loop.first else 'with_' ~ joins[loop.index0 - 1][0],
        'known_' ~ name, keys, event_at, columns, staleness_minutes[name]
    ) }}

),

{% endfor %}

changes as (

    select
        *,
        case when bars_in_run > 1 then lag(open_interest) over by_series end as previous_open_interest,
        case when liquidated_at is not null then coalesce(landed_long, 0) end as liquidations_long,
        case when liquidated_at is not null then coalesce(landed_short, 0) end as liquidations_short

    from with_liquidations
    left join liquidation_bars using (exchange, market, symbol, interval_minutes, opened_at)

    window by_series as (partition by exchange, market, symbol, interval_minutes order by opened_at)

),

final as (

    select
        exchange,
        market,
        symbol,
        interval_minutes,
        opened_at,
        available_at,
        funding_rate,
        {% for column in funding_features -%}
            case when {{ column }}_available_at <= available_at then {{ column }} end as {{ column }},
        {% endfor -%}
        open_interest,
        open_interest - previous_open_interest as oi_change,
        {{ safe_divide('open_interest - previous_open_interest', 'previous_open_interest') }} * 100 as oi_change_pct,
        liquidations_long,
        liquidations_short,
        {{ safe_divide('liquidations_long', 'liquidations_long + liquidations_short') }} as liquidation_ratio,
        {{ safe_divide('mark_price', 'index_price') }} - 1 as basis

    from changes

)

select * from final

{% if is_incremental() %} where opened_at >= {{ changed }} {% endif %}
