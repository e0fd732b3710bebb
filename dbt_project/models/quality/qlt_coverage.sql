{# How much of each feature is there, in all rows of its dataset. #}

with

by_series as (

    select
        dataset,
        feature,
        count(*) as row_count,
        count(value) as known_row_count,
        min(closed_at) as first_closed_at,
        max(closed_at) as last_closed_at,
        min(case when value is not null then closed_at end) as first_known_at,
        max(case when value is not null then closed_at end) as last_known_at

    from {{ ref('qlt_values') }}

    group by dataset, feature, exchange, market, symbol

),

final as (

    select
        dataset,
        feature,
        sum(row_count) as row_count,
        sum(known_row_count) as known_row_count,
        {{ safe_divide(
            'sum(1e0 * ' ~ minutes_between('first_known_at', 'last_known_at') ~ ')',
            'sum(' ~ minutes_between('first_closed_at', 'last_closed_at') ~ ')',
        ) }} as coverage,
        1 - sum(1e0 * known_row_count) / sum(row_count) as null_share,
        case
            when sum(known_row_count) > 0
                then max({{ minutes_between('coalesce(last_known_at, first_closed_at)', 'last_closed_at') }})
        end as staleness_minutes

    from by_series

    group by dataset, feature

)

select * from final
