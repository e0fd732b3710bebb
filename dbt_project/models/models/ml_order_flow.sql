{# Whether the price is higher five bars on, learned from the order-flow dataset. #}

{{ config(
    materialized='ml_model',
    model_type='BOOSTED_TREE_CLASSIFIER',
    input_label_cols=['is_up_5'],
    data_split_method='CUSTOM',
    data_split_col='split',
    label_end_column='label_end_at',
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

    select {{ all_except([
        'exchange', 'market', 'symbol', 'interval_minutes', 'opened_at', 'closed_at', 'available_at', 'return_5', 'fold',
    ]) }}
    from {{ ref('ds_order_flow') }}

)

select * from dataset
