{# dbt's own asks the adapter what the relation is; compiled without a connection (`--no-introspect`), a materialization starts anew. #}
{% macro is_incremental() %}
    {{- return(flags.INTROSPECT and dbt.is_incremental()) -}}
{% endmacro %}
