{# ML.VALIDATE_DATA_DRIFT between two queries, one row per column: input, metric, threshold, value and is_anomaly.

   Numbers are compared by the Jensen-Shannon divergence (base 2, 0 to 1) of ten buckets of equal width over the range of both, missing values
   being an eleventh; categories by the largest difference of a share (L-infinity). The columns are named, as SQL on DuckDB cannot tell kinds
   apart; BigQuery draws its own buckets, so values differ a little between engines. #}
{% macro ml_validate_data_drift(base_query, study_query, numerical=[], categorical=[], threshold='3e-1') -%}
    {{ return(adapter.dispatch('ml_validate_data_drift', 'tapehouse')(base_query, study_query, numerical, categorical, threshold)) }}
{%- endmacro %}

{% macro default__ml_validate_data_drift(base_query, study_query, numerical, categorical, threshold) -%}
    {%- set bucket_count = 10 -%}
    select
        input,
        metric,
        {{ threshold }} as threshold,
        value,
        value > {{ threshold }} as is_anomaly
    from (
        select
            input,
            case when is_number then 'JENSEN_SHANNON_DIVERGENCE' else 'L_INFTY' end as metric,
            case
                when is_number
                    then sum(
                        case when base_share > 0 then base_share * ln(2 * base_share / (base_share + study_share)) else 0 end
                        + case when study_share > 0 then study_share * ln(2 * study_share / (base_share + study_share)) else 0 end
                    ) / 2 / ln(2e0)
                else max(abs(base_share - study_share))
            end as value
        from (
            select
                input,
                is_number,
                bucket,
                coalesce(sum(case when is_base then 1e0 / row_count end), 0) as base_share,
                coalesce(sum(case when not is_base then 1e0 / row_count end), 0) as study_share
            from (
                select
                    is_base,
                    input,
                    is_number,
                    case
                        when is_number
                            then cast(least(
                                floor({{ bucket_count }} * {{ safe_divide('number_ - lowest', 'highest - lowest') }}), {{ bucket_count - 1 }}
                            ) as {{ dbt.type_string() }})
                        else category_
                    end as bucket,
                    count(*) over (partition by is_base, input) as row_count
                from (
                    select
                        *,
                        min(number_) over (partition by input) as lowest,
                        max(number_) over (partition by input) as highest
                    from (
                        {%- for is_base, query in [('true', base_query), ('false', study_query)] -%}
                            {%- set last_query = loop.last -%}
                            {%- for column in numerical + categorical %}
                            select
                                {{ is_base }} as is_base,
                                '{{ column }}' as input,
                                {{ 'true' if column in numerical else 'false' }} as is_number,
                                {{ ml_finite(column) if column in numerical else 'cast(null as ' ~ type_float64() ~ ')' }} as number_,
                                {% if column in numerical -%}
                                    cast(null as {{ dbt.type_string() }}) as category_
                                {%- else -%}
                                    cast({{ column }} as {{ dbt.type_string() }}) as category_
                                {%- endif %}
                            from ({{ query }}) as rows_
                            {{ 'union all' if not (loop.last and last_query) }}
                            {%- endfor %}
                        {%- endfor %}
                    ) as columns_
                ) as ranged
            ) as bucketed
            group by input, is_number, bucket
        ) as shares
        group by input, is_number
    ) as compared
{%- endmacro %}

{% macro bigquery__ml_validate_data_drift(base_query, study_query, numerical, categorical, threshold) -%}
    {%- set columns = (numerical + categorical) | join(', ') -%}
    select
        input,
        metric,
        threshold,
        value,
        is_anomaly
    from ml.validate_data_drift(
        (select {{ columns }} from ({{ base_query }})),
        (select {{ columns }} from ({{ study_query }})),
        struct({{ threshold }} as numerical_default_threshold, {{ threshold }} as categorical_default_threshold)
    )
{%- endmacro %}


{# A number, NULL where it is NaN or infinite. #}
{% macro ml_finite(column) -%}
    case when abs(cast({{ column }} as {{ type_float64() }})) < 1e308 then cast({{ column }} as {{ type_float64() }}) end
{%- endmacro %}
