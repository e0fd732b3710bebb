{# How far to trust each model of the order flow: learned from what they said of bars that they had not learned from. #}

{{ config(
    materialized='ml_model',
    model_type='LOGISTIC_REG',
    input_label_cols=['is_up_5'],
    role='member',
    fold_column=none,
    l2_reg=1,
) }}

{% set dataset = ref('ds_order_flow') %}
{% set key = 'exchange, market, symbol, interval_minutes, opened_at' %}
{% set members = {
    'boosted': 'order_flow', 'forest': 'order_flow_forest', 'linear': 'order_flow_linear', 'network': 'order_flow_network',
} %}

with

labels as (

    select
        {{ key }},
        closed_at,
        label_end_at,
        is_up_5

    from {{ dataset }}

    where split = 'validation'

),

{% for member, name in members.items() %}

{{ member }} as (

    select
        {{ key }},
        prediction as {{ member }}_probability

    from ({{ ml_out_of_fold(ref('ml_' ~ name), ref('pred_order_flow' ~ ('_members' if member != 'boosted'))) }}) as told

),

{% endfor %}

joined as (

    select
        *,
        dense_rank() over (order by closed_at) as place

    from labels
    inner join boosted using ({{ key }})
    inner join forest using ({{ key }})
    inner join linear using ({{ key }})
    inner join network using ({{ key }})

),

lengths as (

    select max(place) as last_place from joined

),

cut as (

    select min(joined.closed_at) as cut_at

    from joined
    cross join lengths

    where joined.place > 7e-1 * lengths.last_place

),

final as (

    select
        {{ key }},
        joined.closed_at,
        joined.label_end_at,
        joined.boosted_probability,
        joined.forest_probability,
        joined.linear_probability,
        joined.network_probability,
        joined.is_up_5,
        case
            when joined.closed_at >= cut.cut_at then 'validation'
            when joined.label_end_at <= cut.cut_at then 'train'
        end as split

    from joined
    cross join cut

)

select * from final
