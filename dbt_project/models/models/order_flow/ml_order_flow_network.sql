{# The question of ml_order_flow, answered by a small network. #}

{{ config(
    materialized='ml_model',
    model_type='DNN_CLASSIFIER',
    input_label_cols=['is_up_5'],
    walk_forward='expanding',
    role='member',
    embargo_minutes=var('embargo_bars') * 5,
    hidden_units=[8],
    learn_rate=0.005,
    batch_size=1024,
    l2_reg=0.01,
    max_iterations=6,
    min_rel_progress=0,
) }}

with

dataset as (

    select {{ all_except(['available_at', 'return_5']) }}
    from {{ ref('ds_order_flow') }}

)

select * from dataset
