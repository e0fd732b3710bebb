{# What each threshold would have earned on the validation part, net of costs. #}

with

blocks as (

    select
        model_name,
        model_version,
        threshold,
        signal_count,
        gross_bps,
        cost_bps,
        funding_bps,
        net_bps

    from {{ ref('sig_candidate_blocks') }}

    where part = 'validation'

),

final as (

    select
        model_name,
        model_version,
        threshold,
        cast(sum(signal_count) as {{ dbt.type_bigint() }}) as signal_count,
        sum(gross_bps) as gross_bps,
        sum(cost_bps) as cost_bps,
        sum(funding_bps) as funding_bps,
        sum(net_bps) as net_bps

    from blocks

    group by model_name, model_version, threshold

)

select * from final
