{#
Refuse wrong variables: each with its name, the value found and what is allowed. Every variable of dbt_project.yml has its rule here.
`changes` stand in for variables of their names.
#}
{% macro check_configuration(changes={}) %}
    {%- set settings = {} -%}
    {%- for name, _, _ in configuration_rules({}) -%}
        {%- do settings.update({name: changes[name] if name in changes else builtins.var(name, none)}) -%}
    {%- endfor -%}
    {%- set problems = [] -%}
    {%- for name, is_right, allowed in configuration_rules(settings) if not is_right -%}
        {%- do problems.append(name ~ ' is ' ~ tojson(settings[name]) ~ ': expected ' ~ allowed) -%}
    {%- endfor -%}
    {%- for name in invocation_args_dict.get('vars', {}) if name not in settings and name not in ['strategies', 'changed_from'] -%}
        {%- do problems.append(name ~ ' is no variable: expected one of ' ~ settings | sort | join(', ')) -%}
    {%- endfor -%}
    {%- if problems -%}
        {%- do exceptions.raise_compiler_error('wrong variables (dbt_project.yml or --vars)\n  ' ~ problems | join('\n  ')) -%}
    {%- endif -%}
{% endmacro %}


{# Of each variable whether it is right, and what is allowed; some have two rules. #}
{% macro configuration_rules(settings) %}
    {{- return(rules_of_numbers(settings) + rules_of_words(settings) + rules_of_lists(settings)) -}}
{% endmacro %}


{# The variables that are numbers: whether they are whole, from where, to where. #}
{% macro rules_of_numbers(settings) %}
    {%- set rules = [] -%}
    {%- for name, (kind, low, high) in {
        'adaptive_base': ['number', 0.000001, 1],
        'adaptive_median_bars': ['whole number', 2, 100000],
        'book_staleness_bars': ['whole number', 0, 1000],
        'book_flow_minutes': ['whole number', 1, 1440],
        'bootstrap_blocks': ['whole number', 2, 1000],
        'bootstrap_draws': ['whole number', 10, 100000],
        'embargo_bars': ['whole number', 0, 100000],
        'feature_quality_pair_rows': ['whole number', 100, 100000],
        'feature_quality_recent_days': ['whole number', 1, 1000],
        'feature_quality_rows': ['whole number', 100, 10000000],
        'fee_bps': ['number', 0, 1000],
        'fold_count': ['whole number', 1, 100],
        'funding_interval_minutes': ['whole number', 1, 1440],
        'funding_regime_fundings': ['whole number', 2, 10000],
        'holding_bars': ['whole number', 1, 1000],
        'large_trade_buckets': ['whole number', 1, 1000],
        'large_trade_percentile': ['whole number', 50, 99],
        'overfitting_blocks': ['whole number', 2, 20],
        'sharpe_minimum_days': ['whole number', 1, 10000],
        'slice_rows': ['whole number', 100, 1000000000],
        'slippage_bps': ['number', 0, 1000],
        'train_share': ['number', 0.01, 0.98],
        'triple_barrier_deviations': ['number', 0.001, 100],
        'validation_share': ['number', 0.01, 0.98],
        'typical_volume_days': ['whole number', 1, 365],
        'vol_regime_bars': ['whole number', 10, 100000],
        'volume_profile_bucket_bps': ['number', 0.01, 1000],
        'vpin_buckets': ['whole number', 2, 1000],
    }.items() -%}
        {%- do rules.append([name, is_between(settings[name], low, high, kind), 'a ' ~ kind ~ ' from ' ~ low ~ ' to ' ~ high]) -%}
    {%- endfor -%}
    {%- set shares = [settings.train_share, settings.validation_share] -%}
    {{- return(rules + [
        ['validation_share', not is_between(shares[0], 0.01, 0.98, 'number') or not is_between(shares[1], 0.01, 0.98, 'number') or shares | sum < 1, 'less than 1 - train_share, which is ' ~ settings.train_share ~ ': the rest is the test'],
        ['overfitting_blocks', settings.overfitting_blocks is not integer or settings.overfitting_blocks % 2 == 0, 'an even number'],
        [
            'funding_interval_minutes',
            settings.funding_interval_minutes is not integer or 1440 % (settings.funding_interval_minutes or 1) == 0,
            'a divisor of the minutes of a day (1440)',
        ],
        [
            'label_tolerance',
            settings.label_tolerance is none or is_between(settings.label_tolerance, 0.001, 100, 'number'),
            'a number from 0.001 to 100, or null for no opposite barrier',
        ],
    ]) -}}
{% endmacro %}


{# The variables that are words. #}
{% macro rules_of_words(settings) %}
    {{- return([
        ['dataset_market', settings.dataset_market in ['spot', 'um'], 'spot or um'],
        ['label_tie', settings.label_tie | string | lower in ['true', 'false', 'null'], '"true", "false" or "null", with the quotes'],
        [
            'reference_symbol',
            modules.re.fullmatch('[A-Z0-9]{2,30}(_[A-Z0-9]{1,10})?', settings.reference_symbol | string),
            'a symbol as the exchange writes it, such as BTCUSDT',
        ],
        [
            'sentiment_scorer',
            modules.re.fullmatch('[A-Za-z0-9_.-]+', settings.sentiment_scorer | string),
            'the name of a scorer in raw.news_scores, such as vader',
        ],
        ['whole_tests', settings.whole_tests is boolean, 'true or false'],
    ]) -}}
{% endmacro %}


{# The variables that hold several values. #}
{% macro rules_of_lists(settings) %}
    {%- set intervals = settings.interval_minutes -%}
    {%- set some = settings.alpha158_interval_minutes -%}
    {%- set staleness = settings.staleness_minutes -%}
    {%- set series = ['funding', 'garch_parameters', 'liquidations', 'macro_bars', 'mark_prices', 'open_interest'] -%}
    {{- return([
        [
            'interval_minutes',
            are_intervals(intervals) and 5 in intervals,
            'rising whole minutes, each a multiple of the one before and a divisor of a day (1440), 5 for ds_order_flow among them',
        ],
        [
            'alpha158_interval_minutes',
            are_intervals(some) and (not are_intervals(intervals) or some | reject('in', intervals) | list == []),
            'some of interval_minutes, rising',
        ],
        ['vol_regime_quantiles', are_rising(settings.vol_regime_quantiles, 2, 0, 1), '2 rising numbers between 0 and 1'],
        ['funding_regime_percentiles', are_rising(settings.funding_regime_percentiles, 2, 0, 100), '2 rising numbers between 0 and 100'],
        [
            'staleness_minutes',
            staleness is mapping and staleness | sort == series
                and staleness.values() | reject('integer') | list == [] and staleness.values() | min > 0,
            'a whole number of minutes above 0 for each of ' ~ series | join(', '),
        ],
        [
            'importance_models',
            settings.importance_models is mapping
                and (settings.importance_models | list + settings.importance_models.values() | list) | reject('string') | list == [],
            'by the name of each dataset (ds_…) the name of a model (ml_…)',
        ],
        [
            'imported_models',
            are_imported(settings.imported_models),
            'by the name of each model its path (gs://…), features and version, as `tapehouse models export` prints them',
        ],
        [
            'high_low_barriers',
            are_barriers(settings.high_low_barriers),
            'pairs of hundredths of a percent (1 to 999) and bars (1 to 240), each once and with its columns in lbl_high_low.yml',
        ],
    ]) -}}
{% endmacro %}


{% macro is_between(value, low, high, kind) %}
    {%- set is_kind = (value is integer) if kind == 'whole number' else (value is number and value is not boolean) -%}
    {{- return(is_kind and low <= value <= high) -}}
{% endmacro %}

{% macro is_list(values) %}
    {{- return(values is sequence and values is not string and values is not mapping and values | length > 0) -}}
{% endmacro %}

{# So many rising numbers between two bounds, the bounds excluded. #}
{% macro are_rising(values, count, low, high) %}
    {{- return(
        is_list(values) and values | length == count and values | reject('number') | list == []
        and values | sort == values | list and values | unique | list == values | list and low < values[0] and values[-1] < high
    ) -}}
{% endmacro %}

{# Whole minutes, each a multiple of the one before it and a divisor of a day. #}
{% macro are_intervals(values) %}
    {%- if not is_list(values) or values | reject('integer') | list or values | min < 1 -%}
        {{- return(false) -}}
    {%- endif -%}
    {%- set wrong = [] -%}
    {%- for value in values -%}
        {%- if 1440 % value or (not loop.first and (value % loop.previtem or value == loop.previtem)) -%}
            {%- do wrong.append(value) -%}
        {%- endif -%}
    {%- endfor -%}
    {{- return(wrong == []) -}}
{% endmacro %}

{# Of each model where its file lies, which columns its tensor takes and its version. #}
{% macro are_imported(values) %}
    {%- set wrong = [] -%}
    {%- for imported in (values.values() if values is mapping else []) -%}
        {%- if imported is not mapping or not imported.get('path', '').startswith('gs://') or not is_list(imported.get('features')) or not imported.get('version') -%}
            {%- do wrong.append(imported) -%}
        {%- endif -%}
    {%- endfor -%}
    {{- return(values is mapping and wrong == []) -}}
{% endmacro %}

{# Pairs of a threshold and a horizon, each once, with their columns once the project is parsed. #}
{% macro are_barriers(values) %}
    {%- set wrong = [] -%}
    {%- set model = models_in('labels').get('lbl_high_low') -%}
    {%- for pair in values if is_list(values) -%}
        {%- if not is_list(pair) or pair | length != 2 or not is_between(pair[0], 1, 999, 'whole number') or not is_between(pair[1], 1, 240, 'whole number') -%}
            {%- do wrong.append(pair) -%}
        {%- elif model and 'high_%03d_%d' | format(pair[0], pair[1]) not in model.columns -%}
            {%- do wrong.append(pair) -%}
        {%- endif -%}
    {%- endfor -%}
    {{- return(is_list(values) and wrong == [] and values | map('string') | unique | list | length == values | length) -}}
{% endmacro %}


{#
dbt's own, which gives whatever is written. While the project is parsed models unfold lists and count with numbers, and would stop
at a wrong one with a word of Jinja's: it is refused here, before they see it.
#}
{% macro var(name) %}
    {%- if not execute -%}
        {%- do check_configuration() -%}
    {%- endif -%}
    {{- return(builtins.var(name, *varargs, **kwargs)) -}}
{% endmacro %}
