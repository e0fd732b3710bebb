{# How many headlines of the last hour and day were known, and the sum of their scores, from one change to the next. #}

{% set changed = changed_from() if is_incremental() %}
{% set windows = {'1h': 60, '24h': 1440} %}
{% set columns = ['headline_count', 'scored_count', 'score_sum'] %}

with

headlines as (

    select
        provider,
        news_id,
        published_at,
        available_at

    from {{ ref('stg_news') }}

),

scores as (

    select
        headlines.published_at,
        greatest(headlines.available_at, scores.available_at) as available_at,
        scores.score

    from headlines
    inner join {{ ref('stg_news_scores') }} as scores
        on headlines.provider = scores.provider
        and headlines.news_id = scores.news_id

    where scores.scorer = '{{ var("sentiment_scorer") }}'

),

items as (

    select
        published_at,
        available_at,
        1 as headline_count,
        0 as scored_count,
        {{ exact_amount('0') }} as score_sum

    from headlines

    union all

    select
        published_at,
        available_at,
        0 as headline_count,
        1 as scored_count,
        {{ exact_amount('score') }} as score_sum

    from scores

),

{# The others had left all windows before. #}
lasting as (

    select * from items

    {% if is_incremental() -%}
        where greatest(available_at, {{ add_minutes('published_at', windows.values() | max) }}) >= {{ changed }}
    {%- endif %}

),

changes as (

    {% for name, minutes in windows.items() -%}
        {% set last_window = loop.last -%}
        {% for sign, changed_at in [
            (1, 'available_at'), (-1, 'greatest(available_at, ' ~ add_minutes('published_at', minutes) ~ ')'),
        ] -%}
            select
                {{ changed_at }} as changed_at,
                {% for other in windows -%}
                    {% set last_other = loop.last -%}
                    {% for column in columns -%}
                        {{ sign if other == name else 0 }} * {{ column }} as {{ column }}_{{ other }}
                        {{- ',' if not (loop.last and last_other) }}
                    {% endfor -%}
                {% endfor %}
            from lasting

            {{ 'union all' if not (loop.last and last_window) }}

        {% endfor -%}
    {% endfor %}
),

moments as (

    select
        changed_at,
        {% for name in windows -%}
            {% set last_window = loop.last -%}
            {% for column in columns -%}
                sum({{ column }}_{{ name }}) as {{ column }}_{{ name }}{{ ',' if not (loop.last and last_window) }}
            {% endfor -%}
        {% endfor %}
    from changes

    group by changed_at

),

final as (

    select
        changed_at,
        changed_at as available_at,
        {% for name in windows -%}
            {% set last_window = loop.last -%}
            {% for column in columns -%}
                {% set type = type_float64() if column == 'score_sum' else dbt.type_bigint() -%}
                cast(sum({{ column }}_{{ name }}) over up_to_change as {{ type }}) as {{ column }}_{{ name }}
                {{- ',' if not (loop.last and last_window) }}
            {% endfor -%}
        {% endfor %}
    from moments

    window up_to_change as (order by changed_at rows between unbounded preceding and current row)

)

select * from final

{% if is_incremental() %} where changed_at >= {{ changed }} {% endif %}
