{# Whether the price is higher five bars on, learned from the order-flow dataset. Which of its columns are split, fold,
   key and times, and so no features, is said of all models in this folder in dbt_project.yml. #}

{{ config(
    materialized='ml_model',
    model_type='BOOSTED_TREE_CLASSIFIER',
    input_label_cols=['is_up_5'],
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
