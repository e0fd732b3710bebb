{# Every feature of every dataset, the most telling first, with what speaks against it. #}

with

flagged as (

    select
        dataset,
        feature,
        mutual_information - mutual_information_of_chance as information_above_chance,
        mutual_information,
        mutual_information_of_chance,
        correlation,
        rank_correlation,
        importance,
        importance_reason,
        null_share,
        coverage,
        staleness_minutes,
        psi,
        collinear_feature,
        collinearity,
        concat(
            case when null_share > 2e-1 then 'nulls above 20 %; ' else '' end,
            case when coverage < 5e-1 then 'known less than half of the time; ' else '' end,
            case when staleness_minutes > 60 then 'no value for an hour; ' else '' end,
            case when psi > 2.5e-1 then 'drift, psi above 0.25; ' else '' end,
            case when correlation is null then 'constant or never known; ' else '' end,
            case when mutual_information <= mutual_information_of_chance then 'tells no more than chance; ' else '' end,
            case
                when abs(collinearity) > 9.5e-1 then concat('the same as ', collinear_feature, ', |r| above 0.95; ')
                else ''
            end
        ) as flags

    from {{ ref('qlt_features') }}

),

final as (

    select
        row_number() over (
            partition by dataset
            {# The last digits are the engine's: of two that are alike the name decides. #}
            order by coalesce(round(information_above_chance, 9), -1) desc, feature
        ) as place,
        *

    from flagged

)

select * from final
order by dataset, place
