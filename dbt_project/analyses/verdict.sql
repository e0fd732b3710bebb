{# GO or NO-GO, with every criterion and its reason. #}

with

final as (

    select
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
order by criterion_number
