{# How far the latest values of each feature have moved from the training part: its bins' shares then and now. #}

with

placed as (

    select
        known.dataset,
        known.feature,
        known.part,
        0
        {% for bin in range(1, 10) -%}
            + case when known.value >= edges.edge_{{ bin }} then 1 else 0 end
        {% endfor -%}
        as bin

    from {{ ref('qlt_values') }} as known
    inner join {{ ref('qlt_relations') }} as edges on known.dataset = edges.dataset and known.feature = edges.feature

    where known.part <> 'other' and known.position <= {{ var('feature_quality_rows') }} and known.value is not null

),

bins as (

    select
        dataset,
        feature,
        bin,
        sum(case when part = 'train' then 1 else 0 end) as train_rows,
        sum(case when part = 'recent' then 1 else 0 end) as recent_rows

    from placed

    group by dataset, feature, bin

),

shares as (

    select
        *,
        sum(recent_rows) over (partition by dataset, feature) as recent_row_count,
        greatest(1e-4, 1e0 * train_rows / sum(train_rows) over (partition by dataset, feature)) as train_share,
        greatest(
            1e-4, {{ safe_divide('1e0 * recent_rows', 'sum(recent_rows) over (partition by dataset, feature)') }}
        ) as recent_share

    from bins

),

final as (

    select
        dataset,
        feature,
        max(recent_row_count) as recent_row_count,
        case
            when max(recent_row_count) > 0 then sum((recent_share - train_share) * ln(recent_share / train_share))
        end as psi

    from shares

    group by dataset, feature

)

select * from final
