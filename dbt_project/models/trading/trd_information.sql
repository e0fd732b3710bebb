{# The information coefficient: how well probabilities order the returns that follow, in all and hour by hour. #}

with

judged as (

    select
        strategy,
        {{ bar_opened_at('opened_at', 60) }} as block_at,
        probability,
        future_return

    from {{ ref('trd_judged') }}

    where future_return is not null

),

ranked as (

    select
        strategy,
        block_at,
        {% for scope, partition in [('all', 'strategy'), ('block', 'strategy, block_at')] -%}
            {% for column in ['probability', 'future_return'] -%}
                {# Mean ranks of ties, less their mean. #}
                rank() over (partition by {{ partition }} order by {{ column }})
                + (count(*) over (partition by {{ partition }}, {{ groupable(column) }}) - 1) / 2e0
                - (count(*) over (partition by {{ partition }}) + 1) / 2e0
                    as {{ scope }}_{{ column }}_rank{{ ',' if not (loop.last and scope == 'block') }}
            {% endfor %}
        {% endfor %}
    from judged

),

all_rows as (

    select
        strategy,
        count(*) as row_count,
        {{ safe_divide(
            'sum(all_probability_rank * all_future_return_rank)',
            'sqrt(sum(power(all_probability_rank, 2)) * sum(power(all_future_return_rank, 2)))'
        ) }} as information_coefficient

    from ranked

    group by strategy

),

blocks as (

    select
        strategy,
        block_at,
        {{ safe_divide(
            'sum(block_probability_rank * block_future_return_rank)',
            'sqrt(sum(power(block_probability_rank, 2)) * sum(power(block_future_return_rank, 2)))'
        ) }} as information_coefficient

    from ranked

    group by strategy, block_at

),

hours as (

    select
        strategy,
        count(information_coefficient) as block_count,
        avg(information_coefficient) as block_information_coefficient,
        {{ safe_divide(
            'avg(information_coefficient) * sqrt(count(information_coefficient))', 'stddev_samp(information_coefficient)'
        ) }} as t_statistic

    from blocks

    group by strategy

),

final as (

    select
        all_rows.strategy,
        all_rows.row_count,
        all_rows.information_coefficient,
        hours.block_count,
        hours.block_information_coefficient,
        hours.t_statistic

    from all_rows
    inner join hours on all_rows.strategy = hours.strategy

)

select * from final
