{# The question of ml_order_flow, answered by a random forest. #}

{{ config(
    materialized='ml_model',
    model_type='RANDOM_FOREST_CLASSIFIER',
    input_label_cols=['is_up_5'],
    walk_forward='expanding',
    role='member',
    embargo_minutes=var('embargo_bars') * 5,
    num_parallel_tree=20,
    max_tree_depth=5,
    min_tree_child_weight=50,
    subsample=0.6,
    colsample_bynode=0.3,
) }}

with

dataset as (

    select {{ all_except(['available_at', 'return_5']) }}
    from {{ ref('ds_order_flow') }}

)

select * from dataset
