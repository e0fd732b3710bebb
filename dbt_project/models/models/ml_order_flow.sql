{# Whether the price is higher five bars on, learned from the order-flow dataset. #}

{{ config(
    materialized='ml_model',
    model_type='BOOSTED_TREE_CLASSIFIER',
    input_label_cols=['is_up_5'],
    data_split_method='CUSTOM',
    data_split_col='split',
    key_columns=['exchange', 'market', 'symbol', 'interval_minutes', 'opened_at'],
    label_start_column='closed_at',
    label_end_column='label_end_at',
    fold_column='fold',
    walk_forward='expanding',
    embargo_minutes=var('embargo_bars') * 5,
    max_iterations=200,
    learn_rate=0.05,
    max_tree_depth=4,
    min_tree_child_weight=50,
    subsample=0.8,
    colsample_bytree=0.7,
    l2_reg=10,
    min_rel_progress=0,
) }}

with

dataset as (

    select {{ all_except(['available_at', 'return_5']) }}
    from {{ ref('ds_order_flow') }}

)

select * from dataset
