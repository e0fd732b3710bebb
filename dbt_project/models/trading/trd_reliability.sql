{# How often the label was true where the model said how likely it is, as it said it and calibrated,
   on the test part. #}

{% set model, dataset = ref('ml_order_flow'), ref('ds_order_flow') %}
{% set validation -%}
    select
        predictions.probability,
        labels.is_up_5 as is_true
    from {{ dataset }} as labels
    inner join {{ ref('pred_order_flow') }} as predictions
        on labels.exchange = predictions.exchange
        and labels.market = predictions.market
        and labels.symbol = predictions.symbol
        and labels.interval_minutes = predictions.interval_minutes
        and labels.opened_at = predictions.opened_at
    where labels.split = 'validation' and predictions.model_version = {{ ml_model_version(model) }}
{%- endset %}

{# On BigQuery the calibration nests too deep for sqlfluff. #}
with  -- noqa: PRS

judged as (

    select
        probability,
        case when is_true then 1e0 else 0e0 end as outcome

    from {{ ref('trd_judged') }}

    where strategy = 'model'

),

calibrated as (

    {{ ml_calibrate(model, 'select * from judged', fitted_on=validation) }}

),

told as (

    {% for method, column in [
        ('none', 'probability'), ('isotonic', 'isotonic_probability'), ('platt', 'platt_probability'),
    ] -%}
        select
            '{{ method }}' as calibration,
            outcome,
            {{ column }} as probability

        from calibrated
        {{ 'union all' if not loop.last }}
    {% endfor %}
),

tenths as (

    select
        *,
        cast(least(floor(10 * probability), 9) as {{ dbt.type_int() }}) as tenth,
        count(*) over (partition by calibration) as all_rows

    from told

    where probability is not null

),

bins as (

    select
        calibration,
        tenth,
        count(*) as row_count,
        avg(probability) as mean_probability,
        avg(outcome) as true_share,
        avg(power(probability - outcome, 2)) as brier_score,
        abs(avg(probability) - avg(outcome)) * count(*) / max(all_rows) as weighted_error

    from tenths

    group by calibration, tenth

),

final as (

    select
        calibration,
        tenth,
        row_count,
        mean_probability,
        true_share,
        brier_score,
        sum(weighted_error) over (partition by calibration) as expected_calibration_error

    from bins

)

select * from final
