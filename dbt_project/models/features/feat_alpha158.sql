{# Alpha158 of Qlib: shapes of the bar, price ratios, and 29 families over 5, 10, 20, 30 and 60 bars. #}

{% set changed = changed_from() if is_incremental() %}
{% set families = {
    'levels': ['ma', 'std', 'beta', 'rsqr', 'resi', 'corr'],
    'ranks': ['roc', 'rank'],
    'quantiles': ['qtlu', 'qtld'],
    'extremes': ['max', 'min', 'rsv', 'imax', 'imin', 'imxd'],
    'changes': ['cntp', 'cntn', 'cntd', 'sump', 'sumn', 'sumd', 'vsump', 'vsumn', 'vsumd'],
    'volumes': ['vma', 'vstd', 'wvma', 'cord'],
} %}

with

bars as (

    select
        series_key,
        exchange,
        market,
        symbol,
        interval_minutes,
        opened_at,
        available_at,
        open_price,
        high_price,
        low_price,
        close_price,
        vwap_price,
        high_price - low_price + 1e-12 as price_range,
        high_price - greatest(open_price, close_price) as upper_shadow,
        least(open_price, close_price) - low_price as lower_shadow,
        2 * close_price - high_price - low_price as close_shift

    from {{ ref('int_alpha158_bars') }}

    {% if is_incremental() %} where opened_at >= {{ changed }} {% endif %}

),

{% for part in families -%}
{{ part }} as (

    select * from {{ ref('int_alpha158_' ~ part) }}

    {% if is_incremental() %} where opened_at >= {{ changed }} {% endif %}

),

{% endfor -%}

final as (

    select
        bars.exchange,
        bars.market,
        bars.symbol,
        bars.interval_minutes,
        bars.opened_at,
        bars.available_at,
        (bars.close_price - bars.open_price) / bars.open_price as kmid,
        (bars.high_price - bars.low_price) / bars.open_price as klen,
        (bars.close_price - bars.open_price) / bars.price_range as kmid2,
        bars.upper_shadow / bars.open_price as kup,
        bars.upper_shadow / bars.price_range as kup2,
        bars.lower_shadow / bars.open_price as klow,
        bars.lower_shadow / bars.price_range as klow2,
        bars.close_shift / bars.open_price as ksft,
        bars.close_shift / bars.price_range as ksft2,
        bars.open_price / bars.close_price as open0,
        bars.high_price / bars.close_price as high0,
        bars.low_price / bars.close_price as low0,
        bars.vwap_price / bars.close_price as vwap0,
        {% for part, names in families.items() -%}
            {% for name in names -%}
                {% for window in alpha158_windows() -%}
                    {{ part }}.{{ name }}{{ window }}{{ ',' if not loop.last }}
                {% endfor -%}
                {{ ',' if not loop.last }}
            {% endfor -%}
            {{ ',' if not loop.last }}
        {% endfor %}
    from bars
    {% for part in families -%}
        inner join {{ part }} on bars.series_key = {{ part }}.series_key and bars.opened_at = {{ part }}.opened_at
    {% endfor %}
)

select * from final

{% if is_incremental() %} where opened_at >= {{ changed }} {% endif %}
