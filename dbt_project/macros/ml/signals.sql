{# The side to take: 1 long, -1 short, 0 none; none without a threshold or a probability. #}
{% macro signal(probability, threshold) -%}
    case
        when {{ probability }} >= 5e-1 + {{ threshold }} then 1
        when {{ probability }} <= 5e-1 - {{ threshold }} then -1
        else 0
    end
{%- endmacro %}


{# The position that the signals of the `holding_bars` bars before a bar ask for: their mean, each a tranche held that long; NULL where
   none can be traded for. #}
{% macro tranches(signal, is_tradable, window) -%}
    case
        when {{ is_tradable }}
            then coalesce(
                sum({{ signal }}) over (
                    {{ window }} rows between {{ var('holding_bars') }} preceding and 1 preceding
                ), 0
            ) / {{ var('holding_bars') }}
    end
{%- endmacro %}


{# The latest value of a column up to this row, over a named window; 0 before the first. #}
{% macro latest(column, window) -%}
    coalesce(last_value({{ column }} ignore nulls) over ({{ window }} rows between unbounded preceding and current row), 0)
{%- endmacro %}


{# Cost in basis points of trading one unit of notional once. #}
{% macro cost_bps() %}{{ var('fee_bps') + var('slippage_bps') }}{% endmacro %}


{# Profit before costs in basis points of a position held during a bar; 0 where the bar or its position is missing. #}
{% macro gross_bps(position, bar_return) -%}
    coalesce(case when {{ position }} <> 0 then 1e4 * {{ position }} * {{ bar_return }} end, 0)
{%- endmacro %}


{# The levels of the go/no-go criteria, the lowest first. #}
{% macro criterion_levels() %}{{ return(['minimum', 'target', 'exceptional']) }}{% endmacro %}


{# The name of the level that was reached. #}
{% macro level_name(grade) -%}
    case {{ grade }} when 0 then 'missed' when 1 then 'minimum' when 2 then 'target' else 'exceptional' end
{%- endmacro %}
