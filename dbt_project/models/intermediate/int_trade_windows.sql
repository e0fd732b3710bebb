{# What trade flows tell over 20, 60 and 288 bars; each total is built from those over a part of the bars. #}

{% set flows = ['net_volume', 'total_volume'] %}
{% set products = {
    'change_flow': 'price_change * net_volume',
    'flow_square': 'net_volume * net_volume',
    'imbalance_square': 'trade_imbalance * trade_imbalance',
    'imbalance_product': 'trade_imbalance * previous_trade_imbalance',
} %}
{% set over_60 = ['price_change', 'trade_imbalance', 'total_trade_count'] + products | list %}
{% set layers = [
    {'bars': 4, 'totals': [(flows + ['illiquidity', 'total_quote_volume'] + over_60, 1, 4)]},
    {'bars': 20, 'totals': [(flows + ['illiquidity', 'total_quote_volume'] + over_60, 4, 5), (flows, 4, 4)]},
    {'bars': 60, 'totals': [(flows + ['illiquidity', 'total_quote_volume'] + over_60, 20, 3), (flows, 16, 3)]},
    {'bars': 288, 'totals': [(flows, 48, 6)]},
] %}

with

over_1 as (

    select
        *,
        {% for name in flows + ['illiquidity', 'total_quote_volume', 'price_change', 'trade_imbalance', 'total_trade_count'] -%}
            {{ name }} as {{ name }}_1,
        {% endfor -%}
        {% for name, product in products.items() -%}
            {{ product }} as {{ name }}_1{{ ',' if not loop.last }}
        {% endfor %}
    from {{ ref('int_trade_flows') }}

    order by exchange, market, symbol, interval_minutes, opened_at

),

{% for layer in layers %}
{% set last_layer = loop.last %}

over_{{ layer.bars }} as (

    select
        *,
        {% for names, bars, times in layer.totals -%}
            {% set last_total = loop.last -%}
            {% for name in names -%}
                {{ repeated_sum(name ~ '_' ~ bars, bars, times) }} as {{ name }}_{{ bars * times }}
                {{- ',' if not (loop.last and last_total) }}
            {% endfor -%}
        {% endfor %}
    from over_{{ {4: 1, 20: 4, 60: 20, 288: 60}[layer.bars] }}

    window by_series as {{ sorted_series() }}

),

{% endfor %}

earlier as (

    select
        *,
        lag(trade_imbalance_60) over by_series as previous_imbalance_60,
        lag(imbalance_square_60) over by_series as previous_square_60

    from over_288

    window by_series as {{ sorted_series() }}

),

final as (

    select
        exchange,
        market,
        symbol,
        interval_minutes,
        opened_at,
        {{ if_full(21, 'illiquidity_20 / 20') }} as amihud_20,
        {{ if_full(61, 'illiquidity_60 / 60') }} as amihud_60,
        {{ if_full(20, 'total_quote_volume_20 / 20') }} as mean_quote_volume_20,
        {{ if_full(60, 'total_quote_volume_60 / 60') }} as mean_quote_volume_60,
        {{ if_full(60, 'total_volume_60 / 60') }} as mean_volume_60,
        {{ if_full(60, 'total_trade_count_60 / 60') }} as mean_trade_count_60,
        {{ if_full(288, 'net_volume_288') }} as net_volume_288,
        {{ if_full(288, 'total_volume_288') }} as total_volume_288,
        {{ if_full(61, safe_divide(
            covariance_of('change_flow_60', 'price_change_60', 'net_volume_60', 60),
            variance_of('flow_square_60', 'net_volume_60', 60)
        )) }} as kyle_lambda,
        {{ if_full(61, safe_divide(
            covariance_of('imbalance_product_60', 'trade_imbalance_60', 'previous_imbalance_60', 60),
            'sqrt(' ~ variance_of('imbalance_square_60', 'trade_imbalance_60', 60) ~ ') * sqrt('
            ~ variance_of('previous_square_60', 'previous_imbalance_60', 60) ~ ')'
        )) }} as trade_imbalance_autocorrelation_1

    from earlier

)

select * from final
