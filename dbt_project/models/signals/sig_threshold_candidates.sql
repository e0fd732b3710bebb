{# What each threshold would have earned on the validation part, net of costs. #}

{% set thresholds = ['5e-3', '1e-2', '2e-2', '3e-2', '5e-2', '75e-3', '1e-1', '15e-2'] %}
{% set candidate = 'model_name, model_version, threshold' %}
{% set series = 'exchange, market, symbol, interval_minutes' %}

with

validation as (

    select
        {{ series }},
        min(closed_at) as start_at,
        max(label_end_at) as end_at

    from {{ ref('ds_order_flow') }}

    where split = 'validation'

    group by {{ series }}

),

predictions as (

    {% for name in ['order_flow', 'order_flow_shuffled'] -%}
        select
            {{ series }},
            opened_at,
            model_name,
            model_version,
            probability

        from {{ ref('pred_' ~ name) }}

        where model_version = {{ ml_model_version(ref('ml_' ~ name), ref('ds_order_flow')) }}
        {{ 'union all' if not loop.last }}
    {% endfor %}
),

models as (

    select distinct
        model_name,
        model_version

    from predictions

),

thresholds as (

    {{ rows_of(thresholds, 'threshold') }}

),

bars as (

    select
        bars.exchange,
        bars.market,
        bars.symbol,
        bars.interval_minutes,
        bars.opened_at,
        {{ bar_return() }} as bar_return

    from {{ ref('int_bars') }} as bars
    inner join validation
        on bars.exchange = validation.exchange
        and bars.market = validation.market
        and bars.symbol = validation.symbol
        and bars.interval_minutes = validation.interval_minutes
        and bars.closed_at between validation.start_at and validation.end_at

    window by_series as (
        partition by bars.exchange, bars.market, bars.symbol, bars.interval_minutes order by bars.opened_at
    )

),

signals as (

    select
        models.model_name,
        models.model_version,
        thresholds.threshold,
        bars.*,
        {{ signal('predictions.probability', 'thresholds.threshold') }} as signal

    from bars
    cross join models
    cross join thresholds
    left join predictions
        on models.model_name = predictions.model_name
        and models.model_version = predictions.model_version
        and bars.exchange = predictions.exchange
        and bars.market = predictions.market
        and bars.symbol = predictions.symbol
        and bars.interval_minutes = predictions.interval_minutes
        and bars.opened_at = predictions.opened_at

),

positions as (

    select
        *,
        {{ tranches('signal', 'partition by ' ~ candidate ~ ', ' ~ series ~ ' order by opened_at') }} as position

    from signals

),

traded as (

    select
        *,
        abs(position - coalesce(lag(position) over by_series, 0)) as turnover

    from positions

    window by_series as (partition by {{ candidate }}, {{ series }} order by opened_at)

),

final as (

    select
        model_name,
        model_version,
        threshold,
        cast(sum(abs(signal)) as {{ dbt.type_bigint() }}) as signal_count,
        sum(1e4 * position * coalesce(bar_return, 0)) as gross_bps,
        sum({{ cost_bps() }} * turnover) as cost_bps,
        sum(1e4 * position * coalesce(bar_return, 0) - {{ cost_bps() }} * turnover) as net_bps

    from traded

    group by {{ candidate }}

)

select * from final
