{# Rows of a key that occurs more than once. #}
{% test unique_combination_of_columns(model, columns) %}

select {{ columns | join(', ') }}

from {{ model }}

group by {{ columns | join(', ') }}

having count(*) > 1

{% endtest %}
