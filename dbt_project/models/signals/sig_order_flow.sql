{# The side to take after each bar: the probability of ml_order_flow held against its threshold. #}

{{ config(materialized='view') }}

with

predictions as (

    select
        exchange,
        market,
        symbol,
        interval_minutes,
        opened_at,
        closed_at,
        available_at,
        model_name,
        model_version,
        probability

    from {{ ref('pred_order_flow') }}

),

thresholds as (

    select
        model_name,
        model_version,
        threshold

    from {{ ref('sig_thresholds') }}

),

final as (

    select
        predictions.*,
        thresholds.threshold,
        {{ signal('predictions.probability', 'thresholds.threshold') }} as signal

    from predictions
    left join thresholds
        on predictions.model_name = thresholds.model_name
        and predictions.model_version = thresholds.model_version

)

select * from final
