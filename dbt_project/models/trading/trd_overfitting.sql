{# How much of the choice of a threshold, or of an ensemble, is luck: combinatorially symmetric cross-validation. #}

{% set block_count = var('overfitting_blocks') %}
{% set choice = 'measure, bits, candidates' %}
{% set candidate = 'candidates, model_name, model_version, threshold' %}

with

times as (

    select
        candidates,
        block_at,
        ntile({{ block_count }}) over (partition by candidates order by block_at) - 1 as time_block

    from {{ ref('trd_candidates') }}

    group by candidates, block_at

),

profits as (

    {% for measure in ['gross', 'net'] -%}
        select
            '{{ measure }}' as measure,
            {{ candidate }},
            time_block,
            {{ measure }}_bps as profit_bps

        from {{ ref('trd_candidates') }}
        inner join times using (candidates, block_at)
        {{ 'union all' if not loop.last }}
    {% endfor %}
),

block_sums as (

    select
        measure,
        {{ candidate }},
        time_block,
        count(*) as hour_count,
        sum(profit_bps) as profit_sum,
        sum(power(profit_bps, 2)) as square_sum

    from profits

    group by measure, {{ candidate }}, time_block

),

{# Every way to let half of the blocks choose and the other half judge; bit k of `bits` says that block k chooses. #}
splits as (

    select bits
    from ({{ numbers(2 ** block_count, 'bits') }}) as numbered

    where bit_count(bits) = {{ block_count // 2 }}

),

sides as (

    select
        splits.bits,
        block_sums.*,
        (splits.bits >> block_sums.time_block) & 1 as chooses

    from splits
    cross join block_sums

),

halves as (

    select
        bits,
        measure,
        {{ candidate }},
        {% for half, bit in [('chosen', 1), ('judged', 0)] -%}
            {% for column in ['hour_count', 'profit_sum', 'square_sum'] -%}
                sum(case when chooses = {{ bit }} then {{ column }} else 0 end)
                    as {{ half }}_{{ column }}{{ ',' if not (loop.last and half == 'judged') }}
            {% endfor %}
        {% endfor %}
    from sides

    group by bits, measure, {{ candidate }}

),

performances as (

    select
        bits,
        measure,
        {{ candidate }},
        judged_profit_sum,
        {# Nine digits, so that equal profits are a tie in whatever order they were added. #}
        {% for half in ['chosen', 'judged'] -%}
            round(coalesce({{ safe_divide(half ~ '_profit_sum', 'sqrt(greatest('
                ~ half ~ '_hour_count * ' ~ half ~ '_square_sum - power(' ~ half ~ '_profit_sum, 2), 0))') }}, 0), 9)
                as {{ half }}_ratio{{ ',' if not loop.last }}
        {% endfor %}
    from halves

),

ranked as (

    select
        *,
        row_number() over (partition by {{ choice }} order by chosen_ratio desc, {{ candidate }}) as chosen_place,
        rank() over (partition by {{ choice }} order by judged_ratio)
        + (count(*) over (partition by {{ choice }}, {{ groupable('judged_ratio') }}) - 1) / 2e0 as judged_rank,
        count(*) over (partition by {{ choice }}) as candidate_count

    from performances

),

final as (

    select
        candidates,
        measure,
        max(candidate_count) as candidate_count,
        count(*) as split_count,
        avg(case when judged_rank <= (candidate_count + 1) / 2e0 then 1e0 else 0e0 end) as overfitting_probability,
        avg(case when judged_profit_sum <= 0 then 1e0 else 0e0 end) as loss_probability,
        avg(ln(judged_rank / (candidate_count + 1 - judged_rank))) as mean_logit

    from ranked

    where chosen_place = 1

    group by candidates, measure

)

select * from final
