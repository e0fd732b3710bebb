{# Returns over the next bars: from the close of the row's bar to the close of the bar `horizon` bars later. #}

{% set changed = changed_from() if is_incremental() %}
{% set horizons = [5, 10, 20, 40] %}

with

bars as (

    select
        exchange,
        market,
        symbol,
        interval_minutes,
        opened_at,
        closed_at,
        available_at,
        close_price,
        bars_in_run

    from {{ ref('int_bars') }}

    where not is_gap
        {% if is_incremental() %} and opened_at >= {{ changed }} {% endif %}

),

outcomes as (

    select
        *,
        {% for horizon in horizons -%}
            case
                when lead(bars_in_run, {{ horizon }}) over by_series > {{ horizon }}
                    then lead(close_price, {{ horizon }}) over by_series
            end as close_price_{{ horizon }},
            case
                when lead(bars_in_run, {{ horizon }}) over by_series > {{ horizon }}
                    then lead(closed_at, {{ horizon }}) over by_series
            end as return_{{ horizon }}_end_at{{ ',' if not loop.last }}
        {% endfor %}
    from bars

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
        {% for horizon in horizons -%}
            close_price_{{ horizon }} / close_price - 1 as return_{{ horizon }},
            ln(close_price_{{ horizon }} / close_price) as log_return_{{ horizon }},
            cast(sign(close_price_{{ horizon }} - close_price) as integer) as direction_{{ horizon }},
            return_{{ horizon }}_end_at{{ ',' if not loop.last }}
        {% endfor %}
    from outcomes

)

select * from final

{% if is_incremental() %} where opened_at >= {{ changed }} {% endif %}
