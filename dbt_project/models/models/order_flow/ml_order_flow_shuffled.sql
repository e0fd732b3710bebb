{# The baseline without a signal: the model of ml_order_flow, learned from labels dealt out anew within each part. #}

{{ config(
    materialized='ml_model',
    model_type='BOOSTED_TREE_CLASSIFIER',
    input_label_cols=['is_up_5'],
    role='baseline',
    fold_column=none,
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

    select *
    from {{ ref('ds_order_flow') }}

    where split in ('train', 'validation')

),

numbered as (

    select
        *,
        row_number() over (
            partition by split order by exchange, market, symbol, interval_minutes, opened_at
        ) as row_in_part

    from dataset

),

dealt as (

    select
        split,
        is_up_5,
        row_number() over (
            partition by split order by {{ text_hash(dbt.cast('row_in_part', dbt.type_string())) }}, row_in_part
        ) as row_in_part

    from numbered

),

shuffled as (

    select
        numbered.{{ all_except(['available_at', 'return_5', 'fold', 'is_up_5', 'row_in_part']) }},
        dealt.is_up_5

    from numbered
    inner join dealt
        on numbered.split = dealt.split
        and numbered.row_in_part = dealt.row_in_part

)

select * from shuffled
