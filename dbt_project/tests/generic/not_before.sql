{# Rows known before the time of another column. #}
{% test not_before(model, column_name, other) %}

select {{ column_name }}, {{ other }}

from {{ model }}

where {{ column_name }} < {{ other }}

{% endtest %}
