{# The rows of a query with its column `probability` calibrated: isotonic_probability, by interpolation between the knots of the nondecreasing
   function that fits the validation part best, and platt_probability, by a line through the log-odds. Both were fitted on the validation part
   when the model was trained; NULL where the registry has none.

   BigQuery ML fits none: for a model that was trained there SQL fits them on `fitted_on`, a query of is_true and probability of rows that the
   model did not learn from. #}
{% macro ml_calibrate(model, query, fitted_on=none) %}
    {{- return(adapter.dispatch('ml_calibrate', 'tapehouse')(model, query, fitted_on)) -}}
{% endmacro %}

{% macro default__ml_calibrate(model, query, fitted_on) -%}
    {{ ml_calibrated(query, ml_recorded(model, 'calibration', 'method, x, y')) }}
{%- endmacro %}

{% macro bigquery__ml_calibrate(model, query, fitted_on) -%}
    {%- if execute and not ml_imported(model) and not fitted_on -%}
        {{- exceptions.raise_compiler_error('ml_calibrate of ' ~ model.identifier ~ ' needs fitted_on: BigQuery ML keeps no calibration') -}}
    {%- endif -%}
    {{ default__ml_calibrate(model, query, fitted_on) if ml_imported(model) else ml_calibrated(query, ml_fitted_calibration(fitted_on)) }}
{%- endmacro %}


{# The rows of a query calibrated by rows of method ('isotonic' or 'platt'), x and y. #}
{% macro ml_calibrated(query, calibration) -%}
    select
        rows_.*,
        coalesce(
            levels_.y + {{ safe_divide(
                '(rows_.probability - levels_.x) * (levels_.next_y - levels_.y)', 'levels_.next_x - levels_.x'
            ) }},
            case when rows_.probability is not null then line_.lowest end
        ) as isotonic_probability,
        1 / (1 + exp(-line_.slope * {{ ml_log_odds('rows_.probability') }} - line_.intercept)) as platt_probability
    from ({{ query }}) as rows_
    cross join (
        select
            min(case when method = 'isotonic' then y end) as lowest,
            max(case when method = 'platt' then x end) as slope,
            max(case when method = 'platt' then y end) as intercept
        from ({{ calibration }}) as recorded
    ) as line_
    left join (
        {# Each probability with the knot at or below it: BigQuery has no outer join by inequality. #}
        select distinct
            probability,
            x,
            y,
            next_x,
            next_y
        from (
            select
                probability,
                is_knot,
                {% for column in ['x', 'y', 'next_x', 'next_y'] -%}
                    last_value({{ column }} ignore nulls) over below as {{ column }}{{ ',' if not loop.last }}
                {% endfor %}
            from (
                select
                    x as probability,
                    1 as is_knot,
                    x,
                    y,
                    {# Beyond the last knot its value is held. #}
                    coalesce(lead(x) over (order by x, y), x + 1) as next_x,
                    coalesce(lead(y) over (order by x, y), y) as next_y
                from ({{ calibration }}) as recorded
                where method = 'isotonic'

                union all

                select distinct
                    probability,
                    0 as is_knot,
                    cast(null as {{ type_float64() }}) as x,
                    cast(null as {{ type_float64() }}) as y,
                    cast(null as {{ type_float64() }}) as next_x,
                    cast(null as {{ type_float64() }}) as next_y
                from ({{ query }}) as asked
            ) as both_
            window below as (order by probability, is_knot desc, y rows between unbounded preceding and current row)
        ) as placed
        where is_knot = 0
    ) as levels_ on rows_.probability = levels_.probability
{%- endmacro %}


{# The logarithm of the odds of a probability that is neither 0 nor 1. #}
{% macro ml_log_odds(probability) -%}
    ln(least(greatest({{ probability }}, 1e-6), 1 - 1e-6) / (1 - least(greatest({{ probability }}, 1e-6), 1 - 1e-6)))
{%- endmacro %}


{# Rows of method, x and y, fitted to the rows of a query with is_true and probability, which are put into at most `bin_count` bins of equal counts
   first, equal probabilities in one bin. Isotonic: of the bin i the largest over j <= i of the smallest over k >= i mean of the bins j to k
   (Barlow et al. 1972, what pooling adjacent violators finds). Platt: Newton's method from the line that changes nothing, so many steps. #}
{% macro ml_fitted_calibration(query, bin_count=200, steps=12) -%}
    {%- set bins -%}
        select
            bin,
            count(*) * 1e0 as row_count,
            sum(case when is_true then 1e0 else 0e0 end) as true_count,
            avg(probability) as probability
        from (
            select
                is_true,
                probability,
                cast(floor({{ bin_count }} * (rank() over (order by probability) - 1) / count(*) over ()) as {{ dbt.type_bigint() }}) as bin
            from ({{ query }}) as told
            where is_true is not null and probability is not null
        ) as placed
        group by bin
    {%- endset -%}
    select
        'isotonic' as method,
        probability as x,
        max(smallest) as y
    from (
        select
            ends.probability,
            min(
                (ends.true_sum - starts.true_sum + starts.true_count) / (ends.row_sum - starts.row_sum + starts.row_count)
            ) over (partition by starts.bin order by ends.bin desc rows between unbounded preceding and current row) as smallest
        from ({{ ml_running_bins(bins) }}) as starts
        inner join ({{ ml_running_bins(bins) }}) as ends on starts.bin <= ends.bin
    ) as pooled
    group by probability

    union all

    select
        'platt' as method,
        max(slope) as x,
        max(intercept) as y
    from (
        {%- for step in range(steps) %}
        select
            row_count,
            true_count,
            odds,
            slope + coalesce({{ safe_divide('intercept_curve * slope_pull - cross_curve * intercept_pull', 'slope_curve * intercept_curve - power(cross_curve, 2)') }}, 0) as slope,
            intercept + coalesce({{ safe_divide('slope_curve * intercept_pull - cross_curve * slope_pull', 'slope_curve * intercept_curve - power(cross_curve, 2)') }}, 0) as intercept
        from (
            select
                row_count,
                true_count,
                odds,
                slope,
                intercept,
                sum(odds * (true_count - row_count * told)) over () as slope_pull,
                sum(true_count - row_count * told) over () as intercept_pull,
                sum(row_count * told * (1 - told) * power(odds, 2)) over () as slope_curve,
                sum(row_count * told * (1 - told) * odds) over () as cross_curve,
                sum(row_count * told * (1 - told)) over () as intercept_curve
            from (
                select
                    *,
                    1 / (1 + exp(-slope * odds - intercept)) as told
                from (
        {%- endfor %}
        select
            row_count,
            true_count,
            {{ ml_log_odds('probability') }} as odds,
            1e0 as slope,
            0e0 as intercept
        from ({{ bins }}) as binned
        {%- for step in range(steps) %}
        ) as before_{{ step }} ) as told_{{ step }} ) as sums_{{ step }}
        {%- endfor %}
    ) as fitted
{%- endmacro %}


{# Bins with their counts summed up to each. #}
{% macro ml_running_bins(bins) -%}
    select
        *,
        sum(row_count) over (order by bin) as row_sum,
        sum(true_count) over (order by bin) as true_sum
    from ({{ bins }}) as binned
{%- endmacro %}
