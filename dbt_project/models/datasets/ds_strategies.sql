{# The datasets that the rows of the seed strategies describe; building this builds the table ds_<name> of each. #}

{{ config(materialized='datasets') }}

{% set parents = [
    'int_bars',
    'feat_alpha158', 'feat_calendar', 'feat_cross_asset', 'feat_derivatives', 'feat_microstructure', 'feat_orderflow',
    'feat_sentiment', 'feat_stats', 'feat_ta',
    'lbl_adaptive', 'lbl_high_low', 'lbl_return', 'lbl_return_class', 'lbl_return_over_vol', 'lbl_triple_barrier',
] %}
{% for parent in parents %}{% do ref(parent) %}{% endfor %}

with

definitions as (

    {% for strategy in strategies() -%}
        {% set features = strategy.families.values() | sum(start=[]) -%}
        {% set sql = dataset_of(
            strategy.market, strategy.symbols, strategy.interval_minutes, strategy.families, strategy.label, strategy.booleans
        ) -%}
        select
            '{{ strategy.name }}' as name,
            '{{ strategy.market }}' as market,
            '{{ strategy.symbols | join(" ") if strategy.symbols is not none else "*" }}' as symbols,
            {{ strategy.interval_minutes }} as interval_minutes,
            '{{ strategy.label }}' as label,
            {{ features | length }} as feature_count,
            '{{ features | join(" ") }}' as features,
            {{ sql_literal(sql) }} as dataset_sql
        {{ 'union all' if not loop.last }}
    {% else -%}
        select
            cast(null as {{ dbt.type_string() }}) as name,
            cast(null as {{ dbt.type_string() }}) as market,
            cast(null as {{ dbt.type_string() }}) as symbols,
            cast(null as integer) as interval_minutes,
            cast(null as {{ dbt.type_string() }}) as label,
            cast(null as integer) as feature_count,
            cast(null as {{ dbt.type_string() }}) as features,
            cast(null as {{ dbt.type_string() }}) as dataset_sql
        from (select 1 as one) as nothing
        where false
    {% endfor %}
)

select * from definitions
