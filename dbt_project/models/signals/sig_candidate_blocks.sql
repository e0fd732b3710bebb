{# What each threshold would have earned by the hour, net of costs, on the validation and on the test part. #}

{% set thresholds = ['5e-3', '1e-2', '2e-2', '3e-2', '5e-2', '75e-3', '1e-1', '15e-2'] %}
{% set candidate = 'model_name, model_version, threshold' %}
{% set series = 'exchange, market, symbol, interval_minutes' %}
{% set partition = 'model_name, model_version, part, ' ~ series ~ ', ' ~ groupable('threshold') %}

with

predictions as (

    {% for name in ['order_flow', 'order_flow_shuffled'] -%}
        select
            {{ series }},
            opened_at,
            model_name,
            model_version,
            probability

        from {{ ref('pred_' ~ name) }}

        where model_version = {{ ml_model_version(ref('ml_' ~ name)) }}
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
        {{ series }},
        part,
        opened_at,
        is_tradable,
        bar_return,
        funding_rate

    from {{ ref('sig_trading_bars') }}

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

wanted as (

    select
        *,
        {{ tranches('signal', 'is_tradable', 'by_series') }} as wanted_position

    from signals

    window by_series as (partition by {{ partition }} order by opened_at)

),

held as (

    select
        *,
        {{ latest('wanted_position', 'by_series') }} as position

    from wanted

    window by_series as (partition by {{ partition }} order by opened_at)

),

traded as (

    select
        *,
        {{ gross_bps('position', 'bar_return') }} as gross_bps,
        {{ cost_bps() }} * abs(position - coalesce(lag(position) over by_series, 0)) as cost_bps,
        1e4 * position * funding_rate as funding_bps

    from held

    window by_series as (partition by {{ partition }} order by opened_at)

),

blocks as (

    select
        *,
        {{ bar_opened_at('opened_at', 60) }} as block_at

    from traded

),

final as (

    select
        {{ candidate }},
        part,
        block_at,
        cast(sum(abs(signal)) as {{ dbt.type_bigint() }}) as signal_count,
        sum(gross_bps) as gross_bps,
        sum(cost_bps) as cost_bps,
        sum(funding_bps) as funding_bps,
        sum(gross_bps - cost_bps - funding_bps) as net_bps

    from blocks

    group by {{ candidate }}, part, block_at

)

select * from final
