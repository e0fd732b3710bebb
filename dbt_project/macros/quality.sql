{#
How good the features of a dataset are: one row per feature. `model` is a model that learned from it, none without one.

What is told beside the label is measured on the training part alone, so that choosing features by it does not look at the parts
that judge. Each part is a sample of at most `feature_quality_rows` rows by a hash of their keys; `feature_quality_pair_rows`
of the training rows make the correlations of features with each other.
#}
{% macro feature_quality_of(name, relation, features, label, model=none) -%}
    with dataset_rows as (

        select
            exchange,
            market,
            symbol,
            closed_at,
            split,
            {{ label_number(label) }} as label_number,
            {{ text_hash('concat(exchange, market, symbol, cast(opened_at as ' ~ dbt.type_string() ~ '))') }} as place,
            {{ features | join(',\n            ') }}

        from {{ relation }}

    ),

    known_by_series as (

        select
            feature,
            count(*) as row_count,
            count(value) as known_row_count,
            min(closed_at) as first_closed_at,
            max(closed_at) as last_closed_at,
            min(case when value is not null then closed_at end) as first_known_at,
            max(case when value is not null then closed_at end) as last_known_at

        from (select exchange, market, symbol, closed_at, {{ features | join(', ') }} from dataset_rows) as kept
        unpivot include nulls (value for feature in ({{ features | join(', ') }}))

        group by exchange, market, symbol, feature

    ),

    known as (

        select
            feature,
            sum(row_count) as row_count,
            sum(known_row_count) as known_row_count,
            sum({{ minutes_between('first_known_at', 'last_known_at') }}) as known_minutes,
            sum({{ minutes_between('first_closed_at', 'last_closed_at') }}) as minutes,
            max(
                {{ minutes_between('coalesce(last_known_at, first_closed_at)', 'last_closed_at') }}
            ) as staleness_minutes

        from known_by_series

        group by feature

    ),

    parts as (

        select
            *,
            split = 'train' as is_train,
            row_number() over (partition by coalesce(split = 'train', false) order by place) as position

        from dataset_rows
        cross join (select max(closed_at) as ends_at from {{ relation }}) as ends

        where split = 'train' or closed_at > {{ add_minutes('ends_at', -1440 * var('feature_quality_recent_days')) }}

    ),

    sampled as (

        select
            coalesce(is_train, false) as is_train,
            position,
            label_number,
            feature,
            value

        from (
            select is_train, position, label_number, {{ features | join(', ') }}
            from parts
            where position <= {{ var('feature_quality_rows') }}
        ) as kept
        unpivot (value for feature in ({{ features | join(', ') }}))

    ),

    ranked as (

        select
            feature,
            position,
            value,
            label_number,
            rank() over (partition by feature order by value) as value_rank,
            count(*) over (partition by feature, value) as value_ties,
            rank() over (partition by feature order by label_number) as label_rank,
            count(*) over (partition by feature, label_number) as label_ties,
            count(*) over (partition by feature) as train_row_count

        from sampled

        where is_train

    ),

    binned as (

        select
            *,
            cast(floor(10 * (value_rank - 1) / train_row_count) as integer) as bin,
            {% if type_of_label(label) == 'double' -%}
                cast(floor(10 * (label_rank - 1) / train_row_count) as integer) as label_bin
            {%- else -%}
                cast(label_number as integer) as label_bin
            {%- endif %}

        from ranked

    ),

    correlations as (

        select
            feature,
            max(train_row_count) as train_row_count,
            count(distinct bin) as bin_count,
            count(distinct label_bin) as label_bin_count,
            case when min(value) < max(value) and min(label_number) < max(label_number) then corr(value, label_number) end
                as correlation,
            case
                when min(value) < max(value) and min(label_number) < max(label_number)
                    then corr(value_rank + (value_ties - 1) / 2e0, label_rank + (label_ties - 1) / 2e0)
            end as rank_correlation

        from binned

        group by feature

    ),

    cells as (

        select
            feature,
            bin,
            label_bin,
            count(*) as in_both,
            sum(count(*)) over (partition by feature, bin) as in_bin,
            sum(count(*)) over (partition by feature, label_bin) as in_label_bin,
            sum(count(*)) over (partition by feature) as in_all

        from binned

        group by feature, bin, label_bin

    ),

    information as (

        select
            feature,
            sum(in_both * ln(1e0 * in_both * in_all / in_bin / in_label_bin) / in_all) as mutual_information

        from cells

        group by feature

    ),

    edges as (

        select
            feature,
            {% for bin in range(1, 10) -%}
                min(case when bin >= {{ bin }} then value end) as edge_{{ bin }}{{ ',' if not loop.last }}
            {% endfor %}

        from binned

        group by feature

    ),

    placed as (

        select
            sampled.feature,
            sampled.is_train,
            0{% for bin in range(1, 10) %} + case when sampled.value >= edges.edge_{{ bin }} then 1 else 0 end{% endfor %} as bin

        from sampled
        inner join edges on sampled.feature = edges.feature

    ),

    shares as (

        select
            feature,
            bin,
            sum(case when is_train then 1 else 0 end) as train_rows,
            sum(case when is_train then 0 else 1 end) as recent_rows,
            sum(sum(case when is_train then 1 else 0 end)) over (partition by feature) as all_train_rows,
            sum(sum(case when is_train then 0 else 1 end)) over (partition by feature) as all_recent_rows

        from placed

        group by feature, bin

    ),

    drift as (

        select
            feature,
            max(all_recent_rows) as recent_row_count,
            case
                when max(all_recent_rows) > 0
                    then sum(
                        (
                            {{ share_of('recent_rows', 'all_recent_rows') }} - {{ share_of('train_rows', 'all_train_rows') }}
                        ) * ln(
                            {{ share_of('recent_rows', 'all_recent_rows') }} / {{ share_of('train_rows', 'all_train_rows') }}
                        )
                    )
            end as psi

        from shares

        group by feature

    ),

    pairs as (

        select
            one.feature,
            other.feature as other_feature,
            case when min(one.value) < max(one.value) and min(other.value) < max(other.value) then corr(one.value, other.value) end
                as correlation

        from ranked as one
        inner join ranked as other on one.position = other.position and one.feature < other.feature

        where one.position <= {{ var('feature_quality_pair_rows') }}

        group by one.feature, other.feature

    ),

    both_ways as (

        select
            feature,
            other_feature,
            correlation

        from pairs

        union all

        select
            other_feature as feature,
            feature as other_feature,
            correlation

        from pairs

    ),

    closest as (

        select
            feature,
            other_feature as collinear_feature,
            correlation as collinearity,
            row_number() over (partition by feature order by abs(correlation) desc, other_feature) as place

        from both_ways

        where correlation is not null

    )

    {%- if model %},

    learned as (

        {{ ml_feature_importance(model) }}

    ),

    importances as (

        select
            feature,
            {{ safe_divide('importance_weight * importance_gain', 'sum(importance_weight * importance_gain) over ()') }} as importance

        from learned

    )

    {%- endif %}

    select
        '{{ name }}' as dataset,
        known.feature,
        known.row_count,
        known.known_row_count,
        {{ safe_divide('1e0 * known.known_minutes', 'known.minutes') }} as coverage,
        {{ safe_divide('1e0 * (known.row_count - known.known_row_count)', 'known.row_count') }} as null_share,
        case when known.known_row_count > 0 then known.staleness_minutes end as staleness_minutes,
        correlations.train_row_count,
        drift.recent_row_count,
        drift.psi,
        correlations.correlation,
        correlations.rank_correlation,
        information.mutual_information,
        {{ safe_divide(
            '1e0 * (correlations.bin_count - 1) * (correlations.label_bin_count - 1)', '2 * correlations.train_row_count'
        ) }} as mutual_information_of_chance,
        closest.collinear_feature,
        closest.collinearity,
        {{ 'importances.importance' if model else 'cast(null as ' ~ type_float64() ~ ')' }} as importance

    from known
    left join correlations on known.feature = correlations.feature
    left join information on known.feature = information.feature
    left join drift on known.feature = drift.feature
    left join closest on known.feature = closest.feature and closest.place = 1
    {% if model %}left join importances on known.feature = importances.feature{% endif %}
{%- endmacro %}


{# A count as a share, at least one in ten thousand, so that an empty bin has a logarithm. #}
{% macro share_of(count, total) -%}
    greatest(1e-4, {{ safe_divide('1e0 * ' ~ count, total) }})
{%- endmacro %}


{# A label as a number: true is 1, the classes of a return are numbered from the lowest to the highest. #}
{% macro label_number(label) -%}
    {% if type_of_label(label) == 'string' -%}
        case {{ label }}
            {% for words in [['strong_down', 'down', 'flat', 'up', 'strong_up'], ['tiny', 'small', 'medium', 'large']] -%}
                {% for word in words -%}
                    when '{{ word }}' then {{ loop.index0 }}e0
                {% endfor -%}
            {% endfor -%}
        end
    {%- elif type_of_label(label) == 'boolean' -%}
        cast(cast({{ label }} as integer) as {{ type_float64() }})
    {%- else -%}
        cast({{ label }} as {{ type_float64() }})
    {%- endif %}
{%- endmacro %}

{% macro type_of_label(label) %}{{ return(labels()[label].data_type if execute else none) }}{% endmacro %}


{# The columns of a model of one type, as it is described; none while the project is parsed. #}
{% macro columns_of_type(model, data_type) %}
    {%- set found = [] -%}
    {%- for node in (graph.nodes.values() if execute else []) if node.resource_type == 'model' and node.name == model -%}
        {%- for column in node.columns.values() if column.data_type == data_type -%}
            {%- do found.append(column.name) -%}
        {%- endfor -%}
    {%- endfor -%}
    {{- return(found) -}}
{% endmacro %}
