{#
The values of a dataset's features, one row for each bar and feature. `part` is 'train', 'recent' for the latest days after it, or
'other'; `position` counts the part's bars in the order of a hash of their keys; `label` is a number, `is_class` if it names a class.
#}
{% macro feature_values_of(name, relation, features, label) -%}
    select
        '{{ name }}' as dataset,
        feature,
        value,
        exchange,
        market,
        symbol,
        closed_at,
        part,
        position,
        label,
        {{ 'false' if type_of_label(label) == 'double' else 'true' }} as is_class

    from (
        select
            *,
            row_number() over (partition by part order by place) as position

        from (
            select
                exchange,
                market,
                symbol,
                closed_at,
                case
                    when split = 'train' then 'train'
                    when closed_at > {{ add_minutes('max(closed_at) over ()', -1440 * var('feature_quality_recent_days')) }} then 'recent'
                    else 'other'
                end as part,
                {{ text_hash('concat(exchange, market, symbol, cast(opened_at as ' ~ dbt.type_string() ~ '))') }} as place,
                {{ label_number(label) }} as label,
                {{ features | join(', ') }}

            from {{ relation }}
        ) as hashed
    ) as numbered
    unpivot include nulls (value for feature in ({{ features | join(', ') }}))
{%- endmacro %}


{# A count as a share, at least one in ten thousand, so that an empty bin has a logarithm. #}
{% macro share_of(count, total) -%}
    greatest(1e-4, {{ safe_divide('1e0 * ' ~ count, total) }})
{%- endmacro %}


{# A label as a number: true is 1, the classes of a return are numbered from the lowest to the highest. #}
{% macro label_number(label) -%}
    {% if type_of_label(label) == 'string' -%}
        case {{ label }}
            {% for words in [['strong_down', 'down', 'flat', 'up', 'strong_up'], ['tiny', 'small', 'medium', 'large']] -%}
                {% for word in words -%}
                    when '{{ word }}' then {{ loop.index0 }}e0
                {% endfor -%}
            {% endfor -%}
        end
    {%- elif type_of_label(label) == 'boolean' -%}
        cast(cast({{ label }} as integer) as {{ type_float64() }})
    {%- else -%}
        cast({{ label }} as {{ type_float64() }})
    {%- endif %}
{%- endmacro %}

{% macro type_of_label(label) %}{{ return(labels()[label].data_type if execute else none) }}{% endmacro %}


{# The columns of a model of one type, as it is described; none while the project is parsed. #}
{% macro columns_of_type(model, data_type) %}
    {%- set found = [] -%}
    {%- for node in (graph.nodes.values() if execute else []) if node.resource_type == 'model' and node.name == model -%}
        {%- for column in node.columns.values() if column.data_type == data_type -%}
            {%- do found.append(column.name) -%}
        {%- endfor -%}
    {%- endfor -%}
    {{- return(found) -}}
{% endmacro %}
