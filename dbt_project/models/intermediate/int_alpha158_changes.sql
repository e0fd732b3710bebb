{# Alpha158 of changes: shares of rising and falling bars, and gains against losses of the close and the volume. #}

{% set changed = changed_from() if is_incremental() %}
{% set columns = ['rise', 'fall', 'gain', 'loss', 'volume_gain', 'volume_loss'] %}

with

over_1 as (

    select
        series_key,
        exchange,
        market,
        symbol,
        interval_minutes,
        opened_at,
        bars_in_run,
        case when close_change > 0 then 1 else 0 end as rise_1,
        case when close_change < 0 then 1 else 0 end as fall_1,
        case when close_change > 0 then close_change else 0 end as gain_1,
        case when close_change < 0 then -close_change else 0 end as loss_1,
        case when volume_change > 0 then volume_change else 0 end as volume_gain_1,
        case when volume_change < 0 then -volume_change else 0 end as volume_loss_1

    from {{ ref('int_alpha158_bars') }}

    {% if is_incremental() %} where {{ in_lookback(changed) }} {% endif %}

    order by exchange, market, symbol, interval_minutes, opened_at

),

{% for step in alpha158_steps() %}

over_{{ step.bars }} as (

    select
        *,
        {% for column in columns -%}
            {{ column }}_{{ step.newer }} + {{ lag_in_run(column ~ '_' ~ step.older, step.newer, 0) }}
                as {{ column }}_{{ step.bars }}{{ ',' if not loop.last }}
        {% endfor %}
    from over_{{ step.newer }}

),

{% endfor %}

totals as (

    select
        *,
        {% for bars in alpha158_windows() -%}
            least(bars_in_run, {{ bars }}) as bars_{{ bars }},
            case when bars_in_run > 1 then gain_{{ bars }} + loss_{{ bars }} + 1e-12 end as move_{{ bars }},
            case when bars_in_run > 1 then volume_gain_{{ bars }} + volume_loss_{{ bars }} + 1e-12 end
                as volume_move_{{ bars }}{{ ',' if not loop.last }}
        {% endfor %}
    from over_60

),

final as (

    select
        series_key,
        exchange,
        market,
        symbol,
        interval_minutes,
        opened_at,
        {% for bars in alpha158_windows() -%}
            rise_{{ bars }} / bars_{{ bars }} as cntp{{ bars }},
            fall_{{ bars }} / bars_{{ bars }} as cntn{{ bars }},
            (rise_{{ bars }} - fall_{{ bars }}) / bars_{{ bars }} as cntd{{ bars }},
            gain_{{ bars }} / move_{{ bars }} as sump{{ bars }},
            loss_{{ bars }} / move_{{ bars }} as sumn{{ bars }},
            (gain_{{ bars }} - loss_{{ bars }}) / move_{{ bars }} as sumd{{ bars }},
            volume_gain_{{ bars }} / volume_move_{{ bars }} as vsump{{ bars }},
            volume_loss_{{ bars }} / volume_move_{{ bars }} as vsumn{{ bars }},
            (volume_gain_{{ bars }} - volume_loss_{{ bars }}) / volume_move_{{ bars }} as vsumd{{ bars }}
            {{- ',' if not loop.last }}
        {% endfor %}
    from totals

)

select * from final

{% if is_incremental() %} where opened_at >= {{ changed }} {% endif %}
