{# What trade flows tell over 20, 60 and 288 bars; each total is built from those over a part of the bars. #}

{% set over_288 = ['net_volume', 'total_volume'] %}
{% set over_20 = ['illiquidity', 'total_quote_volume'] %}
{% set over_60 = ['price_change', 'trade_imbalance', 'total_trade_count'] %}
{% set products = {
    'change_flow': 'price_change * net_volume',
    'flow_square': 'net_volume * net_volume',
    'imbalance_square': 'trade_imbalance * trade_imbalance',
    'imbalance_product': 'trade_imbalance * previous_trade_imbalance',
} %}
{% set all = over_288 + over_20 + over_60 + products | list %}
{% set layers = [
    {'bars': 4, 'from': 1, 'totals': [(all, 1, 4)]},
    {'bars': 20, 'from': 4, 'totals': [(all, 4, 5), (over_288, 4, 4)]},
    {'bars': 60, 'from': 20, 'totals': [(all, 20, 3), (over_288, 16, 3)]},
    {'bars': 288, 'from': 60, 'totals': [(over_288, 48, 6)]},
] %}
{% set changed = changed_from() if is_incremental() %}

with

over_1 as (

    select
        *,
        {% for name in over_288 + over_20 + over_60 -%}
            {{ name }} as {{ name }}_1,
        {% endfor -%}
        {% for name, product in products.items() -%}
            {{ product }} as {{ name }}_1{{ ',' if not loop.last }}
        {% endfor %}
    from {{ ref('int_trade_flows') }}

    {% if is_incremental() %} where {{ in_lookback(changed) }} {% endif %}

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
    from over_{{ layer.from }}

),

{% endfor %}

earlier as (

    select
        *,
        {{ earlier('trade_imbalance_60') }} as previous_imbalance_60,
        {{ earlier('imbalance_square_60') }} as previous_square_60

    from over_288

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

{% if is_incremental() %} where opened_at >= {{ changed }} {% endif %}
