{# The price bucket with most volume in a window: volume enters a bucket with its bar and leaves it a window later. #}

{{ config(materialized='incremental') }}
{% set changed = changed_from() if is_incremental() %}
{% set window_bars = 96 %}
{% set bucket_width = '(' ~ var('volume_profile_bucket_bps') ~ ' * 1e-4 * sqrt(interval_minutes))' %}

with

bars as (

    select
        exchange,
        market,
        symbol,
        interval_minutes,
        cast(
            {{ minutes_between("timestamp '1970-01-01 00:00:00'", 'opened_at') }} / interval_minutes as integer
        ) as bar,
        cast(floor(ln((high_price + low_price + close_price) / 3) / {{ bucket_width }}) as integer) as bucket,
        {{ exact_amount('volume') }} as volume

    from {{ ref('int_bars') }}

    where not is_gap
        {% if is_incremental() %} and {{ in_lookback(changed) }} {% endif %}

),

changes as (

    select * from bars

    union all

    select
        exchange,
        market,
        symbol,
        interval_minutes,
        bar + {{ window_bars }} as bar,
        bucket,
        -volume as volume

    from bars

),

moments as (

    select
        exchange,
        market,
        symbol,
        interval_minutes,
        bar,
        bucket,
        sum(volume) as volume

    from changes

    group by exchange, market, symbol, interval_minutes, bar, bucket

),

{# Volumes have at most 9 decimals; those after name the bucket, and of equal volumes the lowest bucket wins. #}

profiles as (

    select
        exchange,
        market,
        symbol,
        interval_minutes,
        bar,
        case when sum(volume) over up_to_moment > 0 then lead(bar) over by_bucket - bar else 0 end as bars_to_next,
        {{ exact_product('sum(volume) over up_to_moment') }} - {{ exact_product('bucket * 1e-15') }} as ranked_volume

    from moments

    window
        by_bucket as (partition by exchange, market, symbol, interval_minutes, bucket order by bar),
        up_to_moment as (by_bucket rows between unbounded preceding and current row)

),

profiles_of_bars as (

    {{ repeat_rows('profiles', 'bars_to_next') }}

),

largest_profiles as (

    select
        exchange,
        market,
        symbol,
        interval_minutes,
        bar + repetition as bar,
        max(ranked_volume) as ranked_volume

    from profiles_of_bars

    group by exchange, market, symbol, interval_minutes, bar + repetition

),

final as (

    select
        exchange,
        market,
        symbol,
        interval_minutes,
        {{ add_minutes("timestamp '1970-01-01 00:00:00'", 'bar * interval_minutes') }} as opened_at,
        exp(((round(ranked_volume, 9) - ranked_volume) * 1e15 + 5e-1) * {{ bucket_width }}) as volume_profile_poc_96

    from largest_profiles

)

select * from final

{% if is_incremental() %} where opened_at >= {{ changed }} {% endif %}
