{# What everything that may be chosen earned by the hour: thresholds after training, ensembles on the test part. #}

{{ config(materialized='view') }}

with

thresholds as (

    select
        'thresholds' as candidates,
        model_name,
        model_version,
        threshold,
        block_at,
        sum(gross_bps) as gross_bps,
        sum(net_bps) as net_bps

    from {{ ref('sig_candidate_blocks') }}

    group by model_name, model_version, threshold, block_at

),

ensembles as (

    select
        'ensembles' as candidates,
        strategy as model_name,
        'present' as model_version,
        cast(null as {{ type_float64() }}) as threshold,
        block_at,
        gross_bps,
        net_bps

    from {{ ref('trd_blocks') }}

    where strategy like 'ensemble%'

),

final as (

    select * from thresholds

    union all

    select * from ensembles

)

select * from final
