{# The rows of a query with its column `probability` calibrated: isotonic_probability, by interpolation between the knots of the nondecreasing
   function that fits the validation part best, and platt_probability, by a line through the log-odds. Both were fitted on the validation part
   when the model was trained; NULL where the registry has none, as on BigQuery. #}
{% macro ml_calibrate(model, query) %}{{ return(adapter.dispatch('ml_calibrate', 'tapehouse')(model, query)) }}{% endmacro %}

{% macro default__ml_calibrate(model, query) -%}
    select
        rows_.*,
        coalesce(
            case
                when knots.next_x is null then knots.y
                else knots.y + (rows_.probability - knots.x) * (knots.next_y - knots.y) / (knots.next_x - knots.x)
            end, lowest.y
        ) as isotonic_probability,
        1 / (1 + exp(-platt.x * ln(clipped_ / (1 - clipped_)) - platt.y)) as platt_probability
    from (
        select
            *,
            least(greatest(probability, 1e-6), 1 - 1e-6) as clipped_
        from ({{ query }}) as given
    ) as rows_
    left join (
        select
            x,
            y,
            lead(x) over (order by x, y) as next_x,
            lead(y) over (order by x, y) as next_y
        from ({{ ml_recorded(model, 'calibration', 'method, x, y') }}) as recorded
        where method = 'isotonic'
    ) as knots
        on rows_.probability >= knots.x and (rows_.probability < knots.next_x or knots.next_x is null)
    left join (
        select min(y) as y
        from ({{ ml_recorded(model, 'calibration', 'method, x, y') }}) as recorded
        where method = 'isotonic'
    ) as lowest on true
    left join ({{ ml_recorded(model, 'calibration', 'method, x, y') }}) as platt on platt.method = 'platt'
{%- endmacro %}

{% macro bigquery__ml_calibrate(model, query) -%}
    select
        *,
        cast(null as float64) as isotonic_probability,
        cast(null as float64) as platt_probability
    from ({{ query }})
{%- endmacro %}
