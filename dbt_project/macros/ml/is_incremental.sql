{# dbt's own asks the adapter what the relation is; compiled without a connection (`--no-introspect`), a materialization starts anew, and so it does in
   a unit test that does not give `this`. Serving compiles with the variable `changed_from`: what a refresh from that moment on would run. #}
{% macro is_incremental() %}
    {%- if execute and builtins.var('changed_from', none) -%}{{- return(model.config.materialized == 'incremental') -}}{%- endif -%}
    {%- if execute and 'slice of ' ~ model.name in remembered() -%}{{- return(true) -}}{%- endif -%}
    {{- return(flags.INTROSPECT and this is not none and dbt.is_incremental()) -}}
{% endmacro %}
