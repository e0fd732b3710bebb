"""The part of GoogleSQL that BigQuery has and the project uses, for Google's analyser.

The analyser knows more than BigQuery: other products of Google speak GoogleSQL, too, and what is
new stands in the analyser first. So nothing is allowed but what is named here. Each name stands in
BigQuery's reference (https://cloud.google.com/bigquery/docs/reference/standard-sql, "Query syntax",
"Functions", "DDL", "DML"): look it up there before you add one.
"""

import re

from zetasql.core.local_service import ZetaSqlLocalService
from zetasql.types import (
    FunctionSignatureId,
    LanguageFeature,
    LanguageOptions,
    ProductMode,
    ResolvedNodeKind,
    ZetaSQLBuiltinFunctionOptions,
)

# What the language can do. A precision belongs to the columns of a table, not to a cast, so
# parameterized types are not among them.
FEATURES = (
    "ANALYTIC_FUNCTIONS",
    "BIGNUMERIC_TYPE",
    "CREATE_TABLE_CLUSTER_BY",
    "CREATE_TABLE_FIELD_ANNOTATIONS",
    "CREATE_TABLE_NOT_NULL",
    "CREATE_TABLE_PARTITION_BY",
    "DATE_ARITHMETICS",
    "DECIMAL_ALIAS",
    "IS_DISTINCT",
    "JSON_TYPE",
    "NAMED_ARGUMENTS",
    "NULLS_FIRST_LAST_IN_ORDER_BY",
    "NULL_HANDLING_MODIFIER_IN_AGGREGATE",
    "NULL_HANDLING_MODIFIER_IN_ANALYTIC",
    "NUMERIC_TYPE",
    "OMIT_INSERT_COLUMN_LIST",
    "ORDER_BY_IN_AGGREGATE",
    "QUALIFY",
    "REMOTE_MODEL",
    "SELECT_STAR_EXCEPT_REPLACE",
    "TABLE_VALUED_FUNCTIONS",
    "TEMPLATE_FUNCTIONS",
    "UNPIVOT",
    "WITH_ON_SUBQUERY",
    "WITH_RECURSIVE",
)
STATEMENTS = (
    "QUERY_STMT",
    "CREATE_TABLE_AS_SELECT_STMT",
    "CREATE_VIEW_STMT",
    "CREATE_MODEL_STMT",
    "EXPORT_MODEL_STMT",
    "CREATE_SCHEMA_STMT",
    "CREATE_TABLE_STMT",
    "ALTER_TABLE_STMT",
    "INSERT_STMT",
    "DELETE_STMT",
    "MERGE_STMT",
)
_NAMES = """
    abs acos any_value array_agg array_length avg bit_count ceil coalesce concat corr cos count
    countif current_timestamp date dense_rank div exp farm_fingerprint floor format
    format_timestamp generate_array greatest if ifnull is_nan lag last_value lead least left
    length ln lower max md5 min mod ntile nullif parse_json parse_timestamp percent_rank pow
    rank regexp_contains right round row_number safe_divide sign sin sqrt stddev_samp string_agg
    substr sum timestamp_add timestamp_diff timestamp_micros timestamp_trunc to_hex
    to_json_string trunc unix_micros var_pop
"""
FUNCTIONS = frozenset(_NAMES.split())

# Words of DuckDB's before a join, which GoogleSQL reads as the alias of the table before it.
_MISREAD = re.compile(r"\b(?:anti|asof|positional|semi)\s+join\b", re.IGNORECASE)


def check(sql):
    """Raise ValueError for what the analyser reads as something else than was written."""
    if found := _MISREAD.search(sql):
        raise ValueError(f"{found[0]}: the first word would be an alias")


def language():
    """Return what BigQuery understands, as the analyser's options."""
    return LanguageOptions(
        product_mode=ProductMode.PRODUCT_EXTERNAL,
        reserved_keywords=["QUALIFY"],
        enabled_language_features=[LanguageFeature[f"FEATURE_{name}"] for name in FEATURES],
        supported_statement_kinds=[ResolvedNodeKind[f"RESOLVED_{name}"] for name in STATEMENTS],
    )


def builtin_functions(options):
    """Return the analyser's own functions without those that are not named here.

    Operators, whose names begin with ``$``, are all there. A signature that two functions share
    stays for both.
    """
    known = ZetaSqlLocalService.get_instance().get_builtin_functions(language_options=options)
    numbers = {True: set(), False: set()}
    for function in known.function:
        is_there = (
            function.name_path[0].startswith("$") or ".".join(function.name_path) in FUNCTIONS
        )
        numbers[is_there] |= {signature.context_id for signature in function.signature}
    excluded = [FunctionSignatureId(number) for number in numbers[False] - numbers[True]]
    return ZetaSQLBuiltinFunctionOptions(language_options=options, exclude_function_ids=excluded)
