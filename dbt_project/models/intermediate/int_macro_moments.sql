{# What was known of indices and commodities whenever a bar became available. #}

{% set changed = changed_from() if is_incremental() %}

with

series_names as (

    {{ rows_of(["'spx'", "'dxy'", "'gold'", "'vix'"], 'series') }}

),

bar_moments as (

    select distinct available_at

    from {{ ref('int_bars') }}

    where not is_gap
        {% if is_incremental() -%}
            and available_at >= {{ changed }}
            and opened_at >= {{ first_bar_available_since(changed) }}
        {%- endif %}

),

moments as (

    select
        series_names.series,
        bar_moments.available_at

    from bar_moments
    cross join series_names

),

macro_bars as (

    select
        series,
        closed_at,
        close_value,
        available_at

    from {{ ref('stg_macro_bars') }}

    {% if is_incremental() -%}
        where closed_at >= {{ add_minutes(changed, -60 - var('staleness_minutes').macro_bars) }}
    {%- endif %}

),

readings as (

    select
        latest.series,
        latest.closed_at,
        latest.close_value,
        earlier.close_value as earlier_value,
        earlier.available_at as earlier_available_at,
        latest.available_at

    from macro_bars as latest
    left join macro_bars as earlier
        on latest.series = earlier.series
        and latest.closed_at = {{ add_minutes('earlier.closed_at', 60) }}

),

known as (

    {{ as_of_join(
        'moments', 'readings', ['series'], 'closed_at',
        ['close_value', 'earlier_value', 'earlier_available_at'], var('staleness_minutes').macro_bars
    ) }}

),

changes as (

    select
        available_at,
        series,
        case when earlier_available_at <= available_at then close_value / earlier_value - 1 end as return_1h,
        case when earlier_available_at <= available_at then close_value - earlier_value end as change_1h

    from known

),

final as (

    select
        available_at,
        max(case when series = 'spx' then return_1h end) as spx_return_1h,
        max(case when series = 'dxy' then return_1h end) as dxy_return_1h,
        max(case when series = 'gold' then return_1h end) as gold_return_1h,
        max(case when series = 'vix' then change_1h end) as vix_change_1h

    from changes

    group by available_at

)

select * from final

{% if is_incremental() %} where available_at >= {{ changed }} {% endif %}
