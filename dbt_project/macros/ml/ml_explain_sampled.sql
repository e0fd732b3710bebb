{# What ml_explain_predict gives, out of predictions alone: Shapley values sampled as BigQuery samples them where it knows nothing of a model's
   inside (Štrumbelj and Kononenko 2014). Features turn from their mean to the row's value one after another, in several orders; what a score
   moves when a feature turns is the feature's, averaged over the orders. Every second order is the reverse of the one before.

   The baseline is the mean row of training, the score the log-odds of the predicted label or the value of a regression. Attributions of a
   linear model are exact, others come nearer with more orders. A row costs features × orders predictions. #}
{% macro ml_explain_sampled(model, query, top_k_features, features, means, orders=10) -%}
    {%- set active = ml_active_version(model) -%}
    {%- set label = active['label'] -%}
    {%- set predicted = ['predicted_' ~ label] + (['predicted_' ~ label ~ '_probs'] if active['task'] != 'regression' else []) -%}
    {%- set attributions = [] -%}
    {%- for _ in features -%}{%- do attributions.append('attribution_' ~ loop.index) -%}{%- endfor -%}

    {%- set turning -%}
        select
            asked_.row_,
            asked_.said_,
            ways_.*,
            {%- for feature in features %}
            case
                when ways_.turn_{{ loop.index }} <= ways_.turned_ then cast(asked_.said_.{{ feature }} as {{ type_float64() }})
                else cast({{ 'null' if means[loop.index0] is none else means[loop.index0] }} as {{ type_float64() }})
            end as {{ feature }}{{ ',' if not loop.last }}
            {%- endfor %}
        from (
            select
                row_number() over () as row_,
                predicted_ as said_
            from ({{ ml_predict(model, query) }}) as predicted_
        ) as asked_
        cross join ({{ ml_turns(features, orders) }}) as ways_
    {%- endset -%}

    {%- set scored -%}
        select
            row_,
            said_,
            turned_,
            {%- for _ in features %}
            turn_{{ loop.index }},
            {%- endfor %}
            {% if active['task'] == 'regression' -%}
                predicted_{{ label }} as score_
            {%- else -%}
                {%- set said = ml_probability('predicted_' ~ label ~ '_probs', 'said_.predicted_' ~ label) -%}
                ln(greatest({{ said }}, 1e-15)) - ln(greatest(1 - {{ said }}, 1e-15)) as score_
            {%- endif %}
        from ({{ ml_predict(model, turning) }}) as turned_rows_
    {%- endset -%}

    select
        {{ predicted[0] }},
        {% if active['task'] != 'regression' -%}
            {{ ml_probability(predicted[1], predicted[0]) }} as probability,
        {% endif -%}
        {{ ml_top_attributions(features, '[' ~ attributions | join(', ') ~ ']', top_k_features) }} as top_feature_attributions,
        baseline_prediction_value,
        prediction_value,
        {{ safe_divide(
            'abs(baseline_prediction_value + ' ~ attributions | join(' + ') ~ ' - prediction_value)',
            'abs(prediction_value - baseline_prediction_value)'
        ) }} as approximation_error,
        {{ all_except(predicted + attributions + ['baseline_prediction_value', 'prediction_value']) }}
    from (
        select
            {%- for attribution in attributions %}
            {{ attribution }},
            {%- endfor %}
            baseline_prediction_value,
            prediction_value,
            said_.*
        from (
            select
                {%- for attribution in attributions %}
                sum(case turned_ when turn_{{ loop.index }} then score_ when turn_{{ loop.index }} - 1 then -score_ else 0 end) / {{ orders }}
                    as {{ attribution }},
                {%- endfor %}
                avg(case when turned_ = 0 then score_ end) as baseline_prediction_value,
                avg(case when turned_ = {{ features | length }} then score_ end) as prediction_value,
                any_value(said_) as said_
            from ({{ scored }}) as scored_
            group by row_
        ) as explained_
    ) as told_
{%- endmacro %}


{# Orders in which features turn, as rows: turn_<n> says as the how manieth the n-th feature turns, and turned_ how many have. #}
{% macro ml_turns(features, orders) -%}
    {%- set rows = [] -%}
    {%- for order in range((orders / 2) | round(0, 'ceil') | int) -%}
        {%- set drawn = [] -%}
        {%- for feature in features -%}{%- do drawn.append([local_md5(order ~ feature), loop.index]) -%}{%- endfor -%}
        {%- set drawn = drawn | sort | map(attribute=1) | list -%}
        {%- for way in [drawn, drawn | reverse | list][:orders - 2 * order] -%}
            {%- set turns = [] -%}
            {%- for place in range(1, features | length + 1) -%}
                {%- do turns.append((way.index(place) + 1) ~ ' as turn_' ~ place) -%}
            {%- endfor -%}
            {%- do rows.append('select ' ~ turns | join(', ')) -%}
        {%- endfor -%}
    {%- endfor -%}
    select orders_.*, steps_.turned_
    from ({{ rows | join(' union all ') }}) as orders_
    cross join ({{ rows_of(range(features | length + 1), 'turned_') }}) as steps_
{%- endmacro %}


{# The largest of an array of attributions with the names of their features. #}
{% macro ml_top_attributions(features, attributions, top_k_features) -%}
    {{ return(adapter.dispatch('ml_top_attributions', 'tapehouse')(features, attributions, top_k_features)) }}
{%- endmacro %}

{% macro default__ml_top_attributions(features, attributions, top_k_features) -%}
    list_transform(
        list_sort(
            list_transform(
                {{ attributions }},
                lambda value, place: {'size': abs(value), 'place': -place, 'value': value}
            ), 'desc'
        )[:{{ top_k_features }}],
        lambda part: {'feature': [{{ ml_names(features) }}][-part.place], 'attribution': part.value}
    )
{%- endmacro %}

{% macro bigquery__ml_top_attributions(features, attributions, top_k_features) -%}
    array(
        select as struct
            [{{ ml_names(features) }}][safe_offset(place)] as feature,
            attribution
        from unnest({{ attributions }}) as attribution with offset as place
        order by abs(attribution) desc, place
        limit {{ top_k_features }}
    )
{%- endmacro %}


{# Names as strings. #}
{% macro ml_names(names) -%}
    {%- for name in names -%}{{ dbt.string_literal(dbt.escape_single_quotes(name)) }}{{ ', ' if not loop.last }}{%- endfor -%}
{%- endmacro %}
