{# The threshold of each model version, chosen once: the best net of costs on its validation part, or none. #}

{{ config(materialized='incremental', full_refresh=false) }}

{% set minimum_signals = 50 %}

with

candidates as (

    select
        model_name,
        model_version,
        threshold,
        signal_count,
        net_bps,
        signal_count >= {{ minimum_signals }} and net_bps > 0 as is_eligible

    from {{ ref('sig_threshold_candidates') }}

),

ranked as (

    select
        *,
        row_number() over (
            partition by model_name, model_version
            order by case when is_eligible then 0 else 1 end, net_bps desc, threshold
        ) as place

    from candidates

    {% if is_incremental() -%}
        where
            not exists (
                select 1
                from {{ this }} as chosen
                where
                    chosen.model_name = candidates.model_name
                    and chosen.model_version = candidates.model_version
            )
    {%- endif %}

),

final as (

    select
        model_name,
        model_version,
        case when is_eligible then threshold end as threshold,
        case when is_eligible then signal_count else 0 end as signal_count,
        case when is_eligible then net_bps else 0 end as net_bps

    from ranked

    where place = 1

)

select * from final
