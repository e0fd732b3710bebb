{# For each feature the other one of its dataset that is most like it, in a sample of the training part. #}

with

sampled as (

    select
        dataset,
        feature,
        position,
        value

    from {{ ref('qlt_values') }}

    where part = 'train' and position <= {{ var('feature_quality_pair_rows') }} and value is not null

),

pairs as (

    select
        one.dataset,
        one.feature as one_feature,
        other.feature as other_feature,
        case
            when min(one.value) < max(one.value) and min(other.value) < max(other.value)
                then corr(one.value, other.value)
        end as collinearity

    from sampled as one
    inner join sampled as other
        on one.dataset = other.dataset and one.position = other.position and one.feature < other.feature

    group by one.dataset, one.feature, other.feature

),

both_ways as (

    select
        dataset,
        one_feature as feature,
        other_feature as collinear_feature,
        collinearity

    from pairs

    union all

    select
        dataset,
        other_feature as feature,
        one_feature as collinear_feature,
        collinearity

    from pairs

),

ordered as (

    select
        *,
        {# The last digits are the engine's: of two that are alike the name decides. #}
        row_number() over (
            partition by dataset, feature
            order by round(abs(collinearity), 9) desc, collinear_feature
        ) as place

    from both_ways

    where collinearity is not null

),

final as (

    select
        dataset,
        feature,
        collinear_feature,
        collinearity

    from ordered

    where place = 1

)

select * from final
