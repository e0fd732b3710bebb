{# Returns over the next bars by size and class, and whether all horizons agree in sign. #}

{% set changed = changed_from() if is_incremental() %}
{% set horizons = [5, 10, 20, 40] %}

with

returns as (

    select
        exchange,
        market,
        symbol,
        interval_minutes,
        opened_at,
        available_at,
        {% for horizon in horizons -%}
            return_{{ horizon }},
            direction_{{ horizon }},
            return_{{ horizon }}_end_at{{ ',' if not loop.last }}
        {% endfor %}
    from {{ ref('lbl_return') }}

    {% if is_incremental() %} where opened_at >= {{ changed }} {% endif %}

),

final as (

    select
        exchange,
        market,
        symbol,
        interval_minutes,
        opened_at,
        available_at,
        {% for horizon in horizons -%}
            abs(return_{{ horizon }}) as magnitude_{{ horizon }},
            case
                when return_{{ horizon }} <= -2e-3 then 'strong_down'
                when return_{{ horizon }} <= -5e-4 then 'down'
                when return_{{ horizon }} <= 5e-4 then 'flat'
                when return_{{ horizon }} <= 2e-3 then 'up'
                when return_{{ horizon }} > 2e-3 then 'strong_up'
            end as class5_{{ horizon }},
            case
                when abs(return_{{ horizon }}) <= 1e-3 then 'tiny'
                when abs(return_{{ horizon }}) <= 2e-3 then 'small'
                when abs(return_{{ horizon }}) <= 5e-3 then 'medium'
                when abs(return_{{ horizon }}) > 5e-3 then 'large'
            end as magnitude_class_{{ horizon }},
            return_{{ horizon }}_end_at as class_{{ horizon }}_end_at,
        {% endfor -%}
        abs(direction_5 + direction_10 + direction_20 + direction_40) = 4 as agree_5_10_20_40,
        return_40_end_at as agree_5_10_20_40_end_at

    from returns

)

select * from final

{% if is_incremental() %} where opened_at >= {{ changed }} {% endif %}
