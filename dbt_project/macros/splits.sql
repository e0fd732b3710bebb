{# Where the parts of a dataset end: shares of the times with a label, so that a hole in the data is no part of its own. #}
{% macro time_parts(relation, label) -%}
    {% set validation_share = var('train_share') + var('validation_share') -%}
    select
        min(case when place > floor(time_count * {{ var('train_share') }}) then closed_at end) as train_end_at,
        min(case when place > floor(time_count * {{ validation_share }}) then closed_at end) as validation_end_at,
        max(label_end_at) as test_end_at

    from (
        select
            closed_at,
            max(label_end_at) as label_end_at,
            row_number() over (order by closed_at) as place,
            count(*) over () as time_count

        from {{ relation }}

        where {{ label }} is not null

        group by closed_at
    ) as times
{%- endmacro %}


{# The part of a row by its close; NULL where the label is, or where it ends later than the embargo before the part's end. #}
{% macro split_of(label, interval_minutes) -%}
    {% set embargo = -var('embargo_bars') * interval_minutes -%}
    case
        when {{ label }} is null then null
        when closed_at >= validation_end_at then 'test'
        when label_end_at <= {{ add_minutes('validation_end_at', embargo) }} and closed_at >= train_end_at then 'validation'
        when label_end_at <= {{ add_minutes('train_end_at', embargo) }} then 'train'
    end
{%- endmacro %}


{# The walk-forward block of a labelled row after training: `fold_count` blocks of equal time, counted from 1. #}
{% macro fold_of(label) -%}
    case
        when {{ label }} is not null and closed_at >= train_end_at
            then 1 + cast(floor({{ safe_divide(
                minutes_between('train_end_at', 'closed_at') ~ ' * ' ~ var('fold_count'),
                minutes_between('train_end_at', 'test_end_at')
            ) }}) as integer)
    end
{%- endmacro %}
