{# What each threshold brought on the validation part, and which one was chosen. #}

with

candidates as (

    select
        model_name,
        model_version,
        threshold,
        signal_count,
        gross_bps,
        cost_bps,
        net_bps

    from {{ ref('sig_threshold_candidates') }}

),

chosen as (

    select
        model_name,
        model_version,
        threshold

    from {{ ref('sig_thresholds') }}

),

final as (

    select
        candidates.model_name,
        candidates.threshold,
        candidates.signal_count,
        candidates.gross_bps,
        candidates.cost_bps,
        candidates.net_bps,
        coalesce(candidates.threshold = chosen.threshold, false) as is_chosen

    from candidates
    left join chosen
        on candidates.model_name = chosen.model_name
        and candidates.model_version = chosen.model_version

)

select * from final
order by model_name, threshold
