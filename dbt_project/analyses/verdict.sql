{# GO or NO-GO, with every criterion and its reason. #}

with

final as (

    select
        strategy,
        criterion_number,
        criterion,
        value,
        bound,
        is_passed,
        reason,
        verdict

    from {{ ref('trd_verdict') }}

)

select * from final
order by case when strategy = 'model' then 0 else 1 end, strategy, criterion_number
