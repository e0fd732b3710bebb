{# Loss on training and validation by iteration; where validation turns up, the model learns noise. #}

with

final as (

    {{ ml_training_info(ref('ml_order_flow')) }}

)

select * from final
order by iteration
