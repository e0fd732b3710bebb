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


{# Blocks of time for combinatorial purged cross-validation (López de Prado 2018, chapter 12): the labelled rows of a relation by `keys`, with
   `time_block`, one of `block_count` blocks of equally many times, counted from 0, and `touched_blocks`, whose bit k says that the row must not
   train where block k is tested: it lies in the block, its label looks into it, or it closed before the embargo after the block's last label. #}
{% macro combinatorial_blocks(relation, label, keys, block_count, interval_minutes) -%}
    {% set embargo = var('embargo_bars') * interval_minutes -%}
    with

    labelled as (

        select
            {{ keys }},
            closed_at,
            label_end_at,
            dense_rank() over (order by closed_at) as place

        from {{ relation }}

        where {{ label }} is not null

    ),

    blocked as (

        select
            *,
            cast(floor((place - 1) * {{ block_count }} / (1e0 * max(place) over ())) as {{ dbt.type_int() }}) as time_block

        from labelled

    ),

    bounds as (

        select
            time_block,
            min(closed_at) as start_at,
            {{ add_minutes('max(label_end_at)', embargo) }} as end_at

        from blocked

        group by time_block

    )

    select
        {{ keys }},
        blocked.closed_at,
        blocked.label_end_at,
        blocked.time_block,
        sum(
            case when blocked.label_end_at > bounds.start_at and blocked.closed_at < bounds.end_at then 1 << bounds.time_block else 0 end
        ) as touched_blocks

    from blocked
    cross join bounds

    group by {{ keys }}, blocked.closed_at, blocked.label_end_at, blocked.time_block
{%- endmacro %}


{# Every way to test `test_count` of `block_count` blocks: `split_number` from 1, and `tested_blocks`, whose bit k says that block k is tested. #}
{% macro combinatorial_splits(block_count, test_count) -%}
    select
        row_number() over (order by tested_blocks) as split_number,
        tested_blocks
    from ({{ numbers(2 ** block_count, 'tested_blocks') }}) as numbered
    where bit_count(tested_blocks) = {{ test_count }}
{%- endmacro %}


{# The part of a row of `combinatorial_blocks` in a split of `combinatorial_splits`: 'test', 'train', or NULL where it is purged. #}
{% macro combinatorial_part() -%}
    case
        when ((tested_blocks >> time_block) & 1) = 1 then 'test'
        when (tested_blocks & touched_blocks) = 0 then 'train'
    end
{%- endmacro %}
