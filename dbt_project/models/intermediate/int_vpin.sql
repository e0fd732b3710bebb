{# The volume-synchronised probability of informed trading after each minute that completed a volume bucket. #}

{% set buckets = var('vpin_buckets') %}
{% set changed = changed_from() if is_incremental() %}

with

buckets as (

    select
        exchange,
        market,
        symbol,
        day_at,
        bucket_number,
        opened_at,
        completed_at,
        available_at,
        bars_in_run,
        is_last_of_minute,
        imbalance

    from {{ ref('int_volume_buckets') }}

    {% if is_incremental() %} where opened_at >= {{ add_minutes(changed, -4320) }} {% endif %}

),

averaged as (

    select
        *,
        count(imbalance) over last_buckets as bucket_count,
        sum({{ exact_product('imbalance') }}) over last_buckets as imbalance_sum,
        min(day_at) over last_buckets as first_day_at

    from buckets

    window last_buckets as (
        partition by exchange, market, symbol
        order by opened_at, bucket_number
        rows between {{ buckets - 1 }} preceding and current row
    )

),

final as (

    select
        exchange,
        market,
        symbol,
        completed_at,
        available_at,
        {# Of the three UTC days at most there is no gap since the first one began. #}
        case
            when bucket_count = {{ buckets }}
                and {{ minutes_between('first_day_at', 'day_at') }} <= 2880
                and bars_in_run > {{ minutes_between('first_day_at', 'opened_at') }}
                then cast(imbalance_sum as {{ type_float64() }}) / {{ buckets }}
        end as vpin

    from averaged

    where is_last_of_minute

)

select * from final

{% if is_incremental() %} where completed_at >= {{ changed }} {% endif %}
