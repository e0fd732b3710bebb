{# The side to take: 1 long, -1 short, 0 none; none without a threshold or a probability. #}
{% macro signal(probability, threshold) -%}
    case
        when {{ probability }} >= 5e-1 + {{ threshold }} then 1
        when {{ probability }} <= 5e-1 - {{ threshold }} then -1
        else 0
    end
{%- endmacro %}


{# The position held during a bar: the mean of the signals of the `holding_bars` bars before it, each a tranche held that long. #}
{% macro tranches(signal, window) -%}
    coalesce(
        sum({{ signal }}) over (
            {{ window }} rows between {{ var('holding_bars') }} preceding and 1 preceding
        ), 0
    ) / {{ var('holding_bars') }}
{%- endmacro %}


{# Cost in basis points of trading one unit of notional once. #}
{% macro cost_bps() %}{{ var('fee_bps') + var('slippage_bps') }}{% endmacro %}


{# The simple return of a bar against the bar before it, NULL where one of them is a gap; over the window `by_series`. #}
{% macro bar_return() %}close_price / lag(close_price) over by_series - 1{% endmacro %}
