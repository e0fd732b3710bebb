{# What data tests read on BigQuery: the days that changed since they last passed. The table `passed_tests` (test_name, number) keeps up to which
   entry of the bookkeeping (macros/refreshes.sql) a test has seen all rows. On DuckDB, where reading costs next to nothing, a test reads all
   rows; on BigQuery it does with the variable `whole_tests`. #}


{% macro bigquery__get_where_subquery(relation) %}
    {%- set node = graph.nodes.get(model.attached_node) if execute and not config.get('where') else none -%}
    {%- set since = untested_from(node) if node else none -%}
    {%- if not since -%}{{- return(dbt.default__get_where_subquery(relation)) -}}{%- endif -%}
    {%- set column = tested_by(node) -%}
    {%- set bound = 'date(' ~ since ~ ')' if column.endswith('_on') else since -%}
    {{- return('(select * from ' ~ relation ~ ' where ' ~ column ~ ' >= ' ~ bound ~ ')') -}}
{% endmacro %}


{# The column by which the rows of a node that changed are found, that of its partitions or what its `meta.tested_by` says; none where they are
   made anew, or nobody tells when they change. #}
{% macro tested_by(node) %}
    {%- if node.config.materialized == 'incremental' and is_recorded(node) -%}{{- return(node.config.partition_by.field) -}}{%- endif -%}
    {%- set parents = changing_parents(node) if node.config.materialized == 'view' else {'others': [node.name]} -%}
    {%- for name in parents.sources if not graph.sources['source.tapehouse.raw.' ~ name].config.event_time -%}
        {%- do parents.others.append(name) -%}
    {%- endfor -%}
    {{- return(node.config.meta.tested_by if not parents.others else none) -}}
{% endmacro %}


{# Whether a test says of each row alone whether it is right, or compares rows of the same time only. #}
{% macro is_tested_by_day(test) %}
    {%- for name in [test.kwargs.column_name] + (test.kwargs.columns or []) if name and name[-3:] in ['_at', '_on'] -%}
        {{- return(true) -}}
    {%- endfor -%}
    {{- return(test.name in ['not_null', 'accepted_values', 'accepted_range', 'not_before', 'never_in_sample']) -}}
{% endmacro %}


{# The UTC midnight from which on there may be rows that the test being compiled has not seen, a literal; none where it has to read all of them:
   it never passed, compares rows with others of any time, or nobody tells when the node's rows change. #}
{% macro untested_from(node) %}
    {%- set is_bounded = tested_by(node) and is_tested_by_day(model.test_metadata) and not var('whole_tests') -%}
    {%- if builtins.var('changed_from', none) -%}{{- return(builtins.var('changed_from') if is_bounded else none) -}}{%- endif -%}
    {%- set changes = changes_to_test(node) if tested_by(node) and flags.INTROSPECT and flags.WHICH in ['build', 'test'] else {} -%}
    {%- set passed = passed_tests().get(model.unique_id, -1) if changes else -1 -%}
    {%- if changes -%}{%- do tests_of_this_run().update({model.unique_id: [passed, changes | max] | max}) -%}{%- endif -%}
    {%- if not is_bounded or passed == -1 -%}{{- return(none) -}}{%- endif -%}
    {%- set found = [] -%}
    {%- for number, changed in changes.items() if changed and number > passed -%}{%- do found.append(literal_of(changed)) -%}{%- endfor -%}
    {{- return(found | min if found else "timestamp '9999-12-31 00:00:00'") -}}
{% endmacro %}


{# From when on the rows of a node changed by each entry of the bookkeeping that some test of it has not seen, by its number; and the number that
   all have seen, without a time. Empty where the bookkeeping has none. #}
{% macro changes_to_test(node) %}
    {%- set parents = changing_parents(node) if node.config.materialized == 'view' else {'sources': [], 'models': [node.name]} -%}
    {%- set known = remembered() -%}
    {%- set key = 'changes to test in ' ~ node.name -%}
    {%- if key not in known -%}
        {%- set passed = [] -%}
        {%- for test in graph.nodes.values() if test.resource_type == 'test' and test.attached_node == node.unique_id -%}
            {%- do passed.append(passed_tests().get(test.unique_id, -1)) -%}
        {%- endfor -%}
        {%- set found = {passed | min: none} if passed | min >= 0 else {} -%}
        {%- set question -%}
            select number, min(changed_from)
            from ({{ changes_of(parents) }}) as changes
            where number > {{ passed | min }}
            group by number
        {%- endset -%}
        {%- for row in run_query(question) -%}{%- do found.update({row[0] | int: row[1]}) -%}{%- endfor -%}
        {%- do known.update({key: found}) -%}
    {%- endif -%}
    {{- return(known[key]) -}}
{% endmacro %}


{# The number up to which each test has seen everything, read once in a run. #}
{% macro passed_tests() %}
    {%- set known = remembered() -%}
    {%- if 'passed' not in known -%}
        {%- set passed = {} -%}
        {%- set kept = bookkeeping('passed_tests') -%}
        {%- if adapter.get_relation(kept.database, kept.schema, kept.identifier) -%}
            {%- for row in run_query('select test_name, number from ' ~ kept) -%}{%- do passed.update({row[0]: row[1] | int}) -%}{%- endfor -%}
        {%- endif -%}
        {%- do known.update({'passed': passed}) -%}
    {%- endif -%}
    {{- return(known['passed']) -}}
{% endmacro %}

{% macro tests_of_this_run() %}{{ return(remembered().setdefault('tests', {})) }}{% endmacro %}


{# on-run-end: what passed. #}
{% macro record_passed_tests(results) %}
    {%- set passed = [] -%}
    {%- for result in results if result.status == 'pass' and result.node.unique_id in tests_of_this_run() -%}
        {%- do passed.append("struct('" ~ result.node.unique_id ~ "' as test_name, " ~ tests_of_this_run()[result.node.unique_id] ~ ' as number)') -%}
    {%- endfor -%}
    {%- if passed %}
        create table if not exists {{ bookkeeping('passed_tests') }} (test_name string, number int64);
        merge into {{ bookkeeping('passed_tests') }} as known
        using (select * from unnest([{{ passed | join(', ') }}])) as passed
        on known.test_name = passed.test_name
        when matched then update set number = passed.number
        when not matched then insert (test_name, number) values (passed.test_name, passed.number)
    {%- endif -%}
{% endmacro %}
