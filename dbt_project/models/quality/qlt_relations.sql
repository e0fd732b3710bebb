{# What each feature tells of the label, in a sample of the training part, and the edges of its bins there. #}

with

ranked as (

    select
        dataset,
        feature,
        value,
        label,
        is_class,
        rank() over (partition by dataset, feature order by value) as value_rank,
        count(*) over (partition by dataset, feature, {{ groupable("value") }}) as value_ties,
        rank() over (partition by dataset, feature order by label) as label_rank,
        count(*) over (partition by dataset, feature, {{ groupable("label") }}) as label_ties,
        count(*) over (partition by dataset, feature) as train_row_count

    from {{ ref('qlt_values') }}

    where part = 'train' and position <= {{ var('feature_quality_rows') }} and value is not null

),

binned as (

    select
        *,
        cast(floor(10 * (value_rank - 1) / train_row_count) as integer) as bin,
        cast(
            case when is_class then label else floor(10 * (label_rank - 1) / train_row_count) end as integer
        ) as label_bin

    from ranked

),

features as (

    select
        dataset,
        feature,
        max(train_row_count) as train_row_count,
        count(distinct bin) as bin_count,
        count(distinct label_bin) as label_bin_count,
        case when min(value) < max(value) and min(label) < max(label) then corr(value, label) end as correlation,
        case
            when min(value) < max(value) and min(label) < max(label)
                then corr(value_rank + (value_ties - 1) / 2e0, label_rank + (label_ties - 1) / 2e0)
        end as rank_correlation,
        {% for bin in range(1, 10) -%}
            min(case when bin >= {{ bin }} then value end) as edge_{{ bin }}{{ ',' if not loop.last }}
        {% endfor %}

    from binned

    group by dataset, feature

),

cells as (

    select
        dataset,
        feature,
        bin,
        label_bin,
        count(*) as in_both,
        sum(count(*)) over (partition by dataset, feature, bin) as in_bin,
        sum(count(*)) over (partition by dataset, feature, label_bin) as in_label_bin,
        sum(count(*)) over (partition by dataset, feature) as in_all

    from binned

    group by dataset, feature, bin, label_bin

),

information as (

    select
        dataset,
        feature,
        sum(in_both * ln(1e0 * in_both * in_all / in_bin / in_label_bin) / in_all) as mutual_information

    from cells

    group by dataset, feature

),

final as (

    select
        features.dataset,
        features.feature,
        features.train_row_count,
        features.correlation,
        features.rank_correlation,
        information.mutual_information,
        1e0 * (features.bin_count - 1) * (features.label_bin_count - 1) / (2 * features.train_row_count)
            as mutual_information_of_chance,
        {% for bin in range(1, 10) -%}
            features.edge_{{ bin }}{{ ',' if not loop.last }}
        {% endfor %}

    from features
    inner join information on features.dataset = information.dataset and features.feature = information.feature

)

select * from final
