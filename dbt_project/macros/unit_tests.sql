{#
    What dbt compares in a unit test: floating-point numbers to nine significant digits, so that expectations can be written by
    hand, and only the rows that the model and the expectation have not equally often, as dbt compares rows slowly. BigQuery
    compares no arrays (there they are columns of the mode REPEATED): their text.
#}
{% macro default__get_unit_test_sql(main_sql, expected_fixture_sql, expected_column_names) -%}
    {% set compared = dbt.default__get_unit_test_sql(main_sql, expected_fixture_sql, expected_column_names) -%}
    with rounded as (

        select
        {%- for column in get_column_schema_from_query(compared) %}
            {{ nine_digits(column.quoted) ~ ' as ' if column.dtype | lower in ['float', 'double', 'float64'] }}
            {{- 'to_json_string(' ~ column.quoted ~ ') as ' if column.mode == 'REPEATED' }}
            {{- column.quoted }}{{ ',' if not loop.last }}
        {%- endfor %}

        from ({{ compared }}) as compared

    )

    select * from rounded

    where true

    qualify
        sum(case actual_or_expected when 'actual' then 1 else -1 end)
            over (partition by {{ expected_column_names | join(', ') }}) != 0
{%- endmacro %}


{# A floating-point number as text of nine significant digits; 0 has no sign. #}
{% macro nine_digits(number) %}{{ return(adapter.dispatch('nine_digits', 'tapehouse')(number)) }}{% endmacro %}

{% macro default__nine_digits(number) %}printf('%.9g', {{ number }} + 0){% endmacro %}

{% macro bigquery__nine_digits(number) %}format('%.9g', {{ number }} + 0){% endmacro %}
