{# The question of ml_order_flow, answered by a logistic regression. #}

{{ config(
    materialized='ml_model',
    model_type='LOGISTIC_REG',
    input_label_cols=['is_up_5'],
    walk_forward='expanding',
    role='member',
    embargo_minutes=var('embargo_bars') * 5,
    l2_reg=100,
) }}

with

dataset as (

    select {{ all_except(['available_at', 'return_5']) }}
    from {{ ref('ds_order_flow') }}

)

select * from dataset
