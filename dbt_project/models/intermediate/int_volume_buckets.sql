{# Volume buckets and who took in them: each holds the same share of the volume of the UTC day before. #}

{% set buckets = var('vpin_buckets') %}
{% set series = ['exchange', 'market', 'symbol'] %}
{% set amounts = ['volume', 'net_volume'] %}
{% set changed = changed_from() if is_incremental() %}

with

minutes as (

    select
        {{ series | join(',\n        ') }},
        opened_at,
        closed_at,
        available_at,
        bars_in_run,
        {{ bar_opened_at('opened_at', 1440) }} as day_at,
        volume,
        2 * taker_buy_volume - volume as net_volume

    from {{ ref('int_bars') }}

    where interval_minutes = 1 and not is_gap
        {% if is_incremental() %} and {{ in_lookback(changed) }} {% endif %}

),

days as (

    select
        {{ series | join(',\n        ') }},
        {{ add_minutes('day_at', 1440) }} as day_at,
        {{ exact_sum('volume') }} / {{ buckets }} as bucket_volume

    from minutes

    group by exchange, market, symbol, minutes.day_at

    having count(*) = 1440

),

running as (

    select
        *,
        {% for amount in amounts -%}
            sum({{ exact_amount(amount) }}) over (
                partition by exchange, market, symbol, day_at
                order by opened_at
                rows between unbounded preceding and current row
            ) as running_{{ amount }}{{ ',' if not loop.last }}
        {% endfor %}
    from minutes
    inner join days using (exchange, market, symbol, day_at)

    where bucket_volume > 0

),

ends as (

    select
        *,
        {% for amount in amounts -%}
            cast(running_{{ amount }} - {{ exact_amount(amount) }} as {{ type_float64() }}) as {{ amount }}_before,
        {% endfor -%}
        cast(floor(cast(running_volume as {{ type_float64() }}) / bucket_volume) as bigint) as last_bucket

    from running

),

{# Of a minute that fills more buckets than VPIN averages, the earliest ones are left out. #}
completing as (

    select
        *,
        greatest(
            cast(floor(volume_before / bucket_volume) as bigint), last_bucket - {{ buckets + 1 }}
        ) as bucket_before

    from ends

),

counted as (

    select
        *,
        last_bucket - bucket_before as completed_buckets

    from completing

    where last_bucket > bucket_before

),

repeated as (

    {{ repeat_rows('counted', 'completed_buckets') }}

),

{# Within a minute net volume grows with volume. #}
edges as (

    select
        *,
        bucket_before + repetition + 1 as bucket_number,
        net_volume_before
        + net_volume * ((bucket_before + repetition + 1) * bucket_volume - volume_before) / volume as net_volume_at_edge

    from repeated

),

final as (

    select
        {{ series | join(',\n        ') }},
        day_at,
        bucket_number,
        opened_at,
        closed_at as completed_at,
        available_at,
        bars_in_run,
        bucket_number = last_bucket as is_last_of_minute,
        bucket_volume,
        abs(
            net_volume_at_edge
            - case
                when bucket_number = 1 then 0
                when lag(bucket_number) over by_day = bucket_number - 1 then lag(net_volume_at_edge) over by_day
            end
        ) / bucket_volume as imbalance

    from edges

    window by_day as (partition by exchange, market, symbol, day_at order by bucket_number)

)

select * from final

{% if is_incremental() %} where opened_at >= {{ changed }} {% endif %}
