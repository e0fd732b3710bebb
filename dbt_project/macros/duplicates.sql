{#
One row per key of the rows in `landed` (a query), the one that comes first in `order`. `day` is a column of the key that readers
filter by, and `id`, if there is one, a whole number that stays within its UTC day, the column `day`.

Keys that no row repeats pass as they are: sorting all rows cost three to eight times as much as counting (10 M trades: 4.0 against
0.5 s of processor time). Ids are counted by day: a set of ids has none twice where it is as large as the number of bits that it sets,
block by block of 32. BigQuery bills what is read and not what is sorted: there the rows are read once, of the days that a filter on
`day` names.

With `first_known`, a list of expressions, the column `first_known_at` is the least `known_at` of the key's rows that agree in them, of
those that were heard if there are any.
#}
{% macro latest_of(landed, keys, day, order, id=none, first_known=none) %}
    {{- return(adapter.dispatch('latest_of', 'tapehouse')(landed, keys + [day], order, id, first_known)) -}}
{% endmacro %}

{% macro bigquery__latest_of(landed, keys, order, id, first_known) -%}
    {{ first_in_order(landed, keys, order, id, first_known) }}
{%- endmacro %}

{% macro default__latest_of(landed, keys, order, id, first_known) -%}
    {%- set repeated -%}
        select {{ keys | join(', ') }}

        {% if id -%}
            from (

                select
                    {{ keys | join(',\n                    ') }},
                    count(*) as row_count,
                    bit_count(bit_or(cast(1 as bigint) << mod({{ id }}, 32))) as id_count

                from ({{ landed }}) as landed

                group by {{ keys | join(', ') }}, cast(floor({{ id }} / 32) as bigint)

            ) as blocks

            group by {{ keys | join(', ') }}

            having max(case when row_count > id_count then 1 else 0 end) = 1
        {%- else -%}
            from ({{ landed }}) as landed

            group by {{ keys | join(', ') }}

            having count(*) > 1
        {%- endif %}
    {%- endset -%}
    {%- set again -%}
        select landed.*

        from ({{ landed }}) as landed
        inner join ({{ repeated }}) as repeated using ({{ keys | join(', ') }})
    {%- endset -%}

    select
        landed.*
        {{- ', known_at as first_known_at' if first_known }}

    from ({{ landed }}) as landed
    left join ({{ repeated }}) as repeated using ({{ keys | join(', ') }})

    where repeated.{{ keys | last }} is null

    union all

    {{ first_in_order(again, keys, order, id, first_known) }}
{%- endmacro %}

{% macro first_in_order(landed, keys, order, id, first_known) -%}
    {%- set key = keys + ([id] if id else []) -%}
    select
        *
        {%- if first_known -%}
            {%- set agreeing = '(partition by ' ~ (key + first_known) | join(', ') ~ ')' -%}
            , coalesce(
                min(case when {{ was_heard() }} then known_at end) over {{ agreeing }}, min(known_at) over {{ agreeing }}
            ) as first_known_at
        {%- endif %}

    from ({{ landed }}) as landed

    qualify row_number() over (
        partition by {{ key | join(', ') }}
        order by {{ order }}
    ) = 1
{%- endmacro %}
