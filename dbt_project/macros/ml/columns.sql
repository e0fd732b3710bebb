{# Every column but these. #}
{% macro all_except(columns) %}{{ return(adapter.dispatch('all_except', 'tapehouse')(columns)) }}{% endmacro %}

{% macro default__all_except(columns) %}* exclude ({{ columns | join(', ') }}){% endmacro %}

{% macro bigquery__all_except(columns) %}* except ({{ columns | join(', ') }}){% endmacro %}


{# A number without meaning that is the same for the same text on one engine. #}
{% macro text_hash(text) %}{{ return(adapter.dispatch('text_hash', 'tapehouse')(text)) }}{% endmacro %}

{% macro default__text_hash(text) %}hash({{ text }}){% endmacro %}

{% macro bigquery__text_hash(text) %}farm_fingerprint({{ text }}){% endmacro %}
