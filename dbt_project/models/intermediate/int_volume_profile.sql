{# The price bucket with most volume in a window: volume enters a bucket with its bar and leaves it a window later. #}

{% set changed = changed_from() if is_incremental() %}
{% set window_bars = 96 %}
{% set bucket_width = '(' ~ var('volume_profile_bucket_bps') ~ ' * 1e-4 * sqrt(interval_minutes))' %}

with

bars as (

    select
        {{ series_key() }} as series_key,
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

series as (

    select distinct
        series_key,
        exchange,
        market,
        symbol,
        interval_minutes

    from bars

),

changes as (

    select
        series_key,
        bar,
        bucket,
        volume

    from bars

    union all

    select
        series_key,
        bar + {{ window_bars }} as bar,
        bucket,
        -volume as volume

    from bars

),

moments as (

    select
        series_key,
        bucket,
        bar,
        sum(volume) as volume

    from changes

    group by series_key, bucket, bar

    order by series_key, bucket, bar

),

totals as (

    select
        *,
        sum(volume) over {{ up_to_row('series_key, bucket', 'bar') }} as total,  -- noqa: PRS
        lead(bar) over {{ up_to_row('series_key, bucket', 'bar') }} - bar as bars_to_next  -- noqa: PRS

    from moments

),

{# Volumes have at most 9 decimals; those after name the bucket, and of equal volumes the lowest bucket wins. #}

profiles as (

    select
        series_key,
        bar,
        bars_to_next,
        {{ exact_product('total') }} - {{ exact_product('bucket * 1e-15') }} as ranked_volume

    from totals

    where total > 0

),

profiles_of_bars as (

    {{ repeat_rows('profiles', 'bars_to_next') }}

),

largest_profiles as (

    select
        series_key,
        bar + repetition as bar,
        max(ranked_volume) as ranked_volume

    from profiles_of_bars

    group by series_key, bar + repetition

),

final as (

    select
        series.exchange,
        series.market,
        series.symbol,
        series.interval_minutes,
        {{ add_minutes("timestamp '1970-01-01 00:00:00'", 'largest_profiles.bar * series.interval_minutes') }}
            as opened_at,
        exp(
            ((round(largest_profiles.ranked_volume, 9) - largest_profiles.ranked_volume) * 1e15 + 5e-1)
            * {{ bucket_width | replace('interval_minutes', 'series.interval_minutes') }}
        ) as volume_profile_poc_96

    from largest_profiles
    inner join series on largest_profiles.series_key = series.series_key

)

select * from final

{% if is_incremental() %} where opened_at >= {{ changed }} {% endif %}
