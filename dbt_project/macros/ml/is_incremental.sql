{# dbt's own asks the adapter what the relation is; compiled without a connection (`--no-introspect`), a materialization starts anew, and so it does in
   a unit test that does not give `this`. #}
{% macro is_incremental() %}
    {{- return(flags.INTROSPECT and this is not none and dbt.is_incremental()) -}}
{% endmacro %}
