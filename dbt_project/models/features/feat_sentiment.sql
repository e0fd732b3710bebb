{# Headlines of the last hour and day and their mean score, as known when a bar became available. #}

{% set changed = changed_from() if is_incremental() %}
{% set windows = ['1h', '24h'] %}

with

bars as (

    select
        exchange,
        market,
        symbol,
        interval_minutes,
        opened_at,
        available_at

    from {{ ref('int_bars') }}

    where not is_gap
        {% if is_incremental() %} and opened_at >= {{ changed }} {% endif %}

),

moments as (

    select distinct available_at from bars

),

changes as (

    select * from {{ ref('int_news_changes') }}

    {% if is_incremental() %} where changed_at >= {{ add_minutes(changed, -1440) }} {% endif %}

),

known as (

    {{ as_of_join(
        'moments', 'changes', [], 'changed_at',
        [
            'headline_count_1h', 'scored_count_1h', 'score_sum_1h',
            'headline_count_24h', 'scored_count_24h', 'score_sum_24h',
        ],
        1440,
    ) }}

),

final as (

    select
        exchange,
        market,
        symbol,
        interval_minutes,
        opened_at,
        available_at,
        {% for window in windows -%}
            case when headline_count_24h > 0 then {{ safe_divide('score_sum_' ~ window, 'scored_count_' ~ window) }} end
                as sentiment_mean_{{ window }},
            case when headline_count_24h > 0 then headline_count_{{ window }} end
                as headline_count_{{ window }}{{ ',' if not loop.last }}
        {% endfor %}
    from bars
    inner join known using (available_at)

)

select * from final

{% if is_incremental() %} where opened_at >= {{ changed }} {% endif %}
