{# The side to take after each bar: the probability of ml_order_flow held against its threshold. #}

{{ config(materialized='view') }}

with

final as (

    {{ signals_of(ref('pred_order_flow'), ref('sig_thresholds')) }}

)

select * from final
