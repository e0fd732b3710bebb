"""Google's SQL analyser over statements, each resolved against the tables of those before it.

Reads JSON from standard input and writes JSON to standard output:

    {"tables": {relation: {column: type}},
     "statements": [{"relation": relation, "sql": text, "reads": [relation]}]}

and for each statement, by its relation, ``{"columns": {column: type}}`` or ``{"error": text}``.

A program of its own: long sums nest deeper than the C++ implementation of protocol buffers
reads, and which implementation a process has is decided by its environment.
"""

import json
import sys
import threading

import bigquery_models
from bigquery_types import ALIASES, argument, name_of, type_of
from google.protobuf.internal import decoder
from zetasql.api import CatalogBuilder, FunctionBuilder, TableBuilder
from zetasql.core.exceptions import ServerError
from zetasql.core.local_service import ZetaSqlLocalService, local_service_pb2, parse_proto
from zetasql.types import (
    AnalyzeRequest,
    AnalyzerOptions,
    FunctionEnums,
    FunctionSignature,
    LanguageOptions,
    ProductMode,
    SignatureArgumentKind,
    SimpleCatalog,
    ZetaSQLBuiltinFunctionOptions,
)

DEPTH = 100_000
# Aggregates that BigQuery has and the analyser's own library does not: value, ordering.
LIBRARY = ("min_by", "max_by")


def ordered_aggregate(name):
    value, order = SignatureArgumentKind.ARG_TYPE_ANY_1, SignatureArgumentKind.ARG_TYPE_ANY_2
    signature = FunctionSignature(
        argument=[argument(value), argument(order)], return_type=argument(value)
    )
    return FunctionBuilder(name, mode=FunctionEnums.Mode.AGGREGATE).add_signature(signature).build()


def table(relation, columns):
    builder = TableBuilder(relation)
    for name, kind in columns.items():
        builder.add_column(name, kind)
    return builder.build()


def resolved(sql, options, catalog):
    """Analyze without the binding's objects for every node, which take twice as long."""
    request = AnalyzeRequest(sql_statement=sql, options=options, simple_catalog=catalog)
    client = ZetaSqlLocalService.get_instance().wasm_client
    answer = client.call_grpc_func(
        "ZetaSqlLocalService_Analyze", request.to_proto(), local_service_pb2.AnalyzeResponse
    )
    return answer.resolved_statement


def analysed(work):
    language = LanguageOptions.maximum_features()
    language.product_mode = ProductMode.PRODUCT_EXTERNAL
    language.reserved_keywords = ["QUALIFY"]
    options = AnalyzerOptions(language_options=language)
    builtin = ZetaSQLBuiltinFunctionOptions(language_options=language)
    library = [ordered_aggregate(name) for name in LIBRARY]
    aliases = [SimpleCatalog.NamedType(name=name, type=type_of(name)) for name in ALIASES]
    tables = {
        relation: table(relation, {name: type_of(kind) for name, kind in columns.items()})
        for relation, columns in work["tables"].items()
    }
    models = {}
    for statement in work["statements"]:
        builder = CatalogBuilder("project").with_builtin_functions(builtin)
        for function in library:
            builder.add_function(function)
        for relation in statement["reads"]:
            if relation in tables:
                builder.add_table(tables[relation])
        catalog = builder.build()
        catalog.named_type = aliases
        read = {name: models[name] for name in statement["reads"] if name in models}
        sql = bigquery_models.declare(catalog, statement["sql"], read)
        options.allowed_hints_and_options = bigquery_models.options_of(sql)
        try:
            found = resolved(sql, options, catalog)
            if options.allowed_hints_and_options is not None:
                models[statement["relation"]] = bigquery_models.created(
                    found.resolved_create_statement_node.resolved_create_model_stmt_node,
                    sql,
                    classes=tuple(statement.get("classes", ())),
                    onnx=statement.get("onnx"),
                )
                yield statement["relation"], {"columns": {}}
                continue
        except (ServerError, ValueError) as error:
            yield statement["relation"], {"error": str(error)}
            continue
        output = found.resolved_query_stmt_node.output_column_list
        columns = {column.name: parse_proto(column.column.type) for column in output}
        tables[statement["relation"]] = table(statement["relation"], columns)
        yield (
            statement["relation"],
            {"columns": {name: name_of(kind) for name, kind in columns.items()}},
        )


def main():
    json.dump(dict(analysed(json.load(sys.stdin))), sys.stdout)


if __name__ == "__main__":
    sys.setrecursionlimit(DEPTH)
    decoder.SetRecursionLimit(DEPTH)
    threading.stack_size(512 * 1024 * 1024)
    thread = threading.Thread(target=main)
    thread.start()
    thread.join()
