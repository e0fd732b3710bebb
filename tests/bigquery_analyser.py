"""Google's SQL analyser over statements, each resolved against the tables of those before it.

Reads JSON from standard input and writes JSON to standard output:

    {"tables": {relation: {column: type}},
     "statements": [{"relation": relation, "sql": text, "reads": [relation]}]}

and for each statement, by its `name` or else its relation, ``{"columns": {column: type}}`` or
``{"error": text}``.

A program of its own: long sums nest deeper than the C++ implementation of protocol buffers
reads, and which implementation a process has is decided by its environment.
"""

import fcntl
import json
import sys
import threading
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path

import bigquery_language
import bigquery_models
import wasmtime
from bigquery_types import ALIASES, argument, name_of, type_of
from google.protobuf import message_factory
from google.protobuf.internal import decoder
from zetasql.api import CatalogBuilder, FunctionBuilder, TableBuilder
from zetasql.core import wasm_client
from zetasql.core.exceptions import ServerError
from zetasql.core.local_service import ZetaSqlLocalService, local_service_pb2, parse_proto
from zetasql.types import (
    AnalyzeRequest,
    AnalyzerOptions,
    FunctionEnums,
    FunctionSignature,
    SignatureArgumentKind,
    SimpleCatalog,
)

DEPTH = 100_000
KEPT = Path(__file__).resolve().parents[1] / ".pytest_cache" / "analyser"
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


def resolved(sql, options, catalog, *, answer=local_service_pb2.AnalyzeResponse):
    """Analyze without the binding's objects for every node, which take twice as long."""
    request = AnalyzeRequest(sql_statement=sql, options=options, simple_catalog=catalog)
    client = ZetaSqlLocalService.get_instance().wasm_client
    return client.call_grpc_func("ZetaSqlLocalService_Analyze", request.to_proto(), answer)


def fields(message):
    """Yield the number and the bytes of each field of an encoded message that is one itself."""
    place = 0
    while place < len(message):
        tag, place = decoder._DecodeVarint(message, place)
        length, place = decoder._DecodeVarint(message, place)
        if tag & 7 == 2:
            yield tag >> 3, message[place : place + length]
            place += length


class OutputColumns:
    """The columns of a query, from an answer whose resolved tree is not decoded: it is deep."""

    response = local_service_pb2.AnalyzeResponse.DESCRIPTOR
    created = ("resolved_statement", "resolved_create_statement_node")
    queries = (
        ("resolved_statement", "resolved_query_stmt_node"),
        (
            *created,
            "resolved_create_table_stmt_base_node",
            "resolved_create_table_as_select_stmt_node",
        ),
        (*created, "resolved_create_view_base_node", "resolved_create_view_stmt_node", "parent"),
    )

    @classmethod
    def FromString(cls, answer):  # noqa: N802
        return [column for path in cls.queries for column in cls.columns(answer, path)]

    @classmethod
    def columns(cls, answer, path):
        """Yield the columns of the statement that lies at the end of a path, if one does."""
        message, kind = answer, cls.response
        for name in path:
            field = kind.fields_by_name[name]
            message, kind = dict(fields(message)).get(field.number, b""), field.message_type
        column = kind.fields_by_name["output_column_list"]
        decode = message_factory.GetMessageClass(column.message_type).FromString
        for number, part in fields(message):
            if number == column.number:
                yield decode(part)


def analysed(work):
    language = bigquery_language.language()
    options = AnalyzerOptions(language_options=language)
    builtin = bigquery_language.builtin_functions(language)
    library = [ordered_aggregate(name) for name in LIBRARY]
    aliases = [SimpleCatalog.NamedType(name=name, type=type_of(name)) for name in ALIASES]
    tables = {
        relation: table(relation, {name: type_of(kind) for name, kind in columns.items()})
        for relation, columns in work["tables"].items()
    }
    models = {}
    for statement in work["statements"]:
        name = statement.get("name", statement["relation"])
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
            bigquery_language.check(sql)
            if options.allowed_hints_and_options is not None:
                found = resolved(sql, options, catalog).resolved_statement
                models[statement["relation"]] = bigquery_models.created(
                    found.resolved_create_statement_node.resolved_create_model_stmt_node,
                    sql,
                    classes=tuple(statement.get("classes", ())),
                    onnx=statement.get("onnx"),
                )
                yield name, {"columns": {}}
                continue
            output = resolved(sql, options, catalog, answer=OutputColumns)
        except (ServerError, ValueError) as error:
            yield name, {"error": str(error)}
            continue
        columns = {column.name: parse_proto(column.column.type) for column in output}
        tables[statement["relation"]] = table(statement["relation"], columns)
        yield name, {"columns": {column: name_of(kind) for column, kind in columns.items()}}


class Module:
    """Machine code of the analyser, kept: to make it of WebAssembly takes half a minute."""

    @staticmethod
    def from_file(engine, path):
        built = sha256(Path(path).read_bytes() + version("wasmtime").encode()).hexdigest()[:16]
        kept = KEPT / f"{built}.cwasm"
        KEPT.mkdir(parents=True, exist_ok=True)
        with (KEPT / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not kept.exists():
                part = kept.with_suffix(".part")
                part.write_bytes(wasmtime.Module.from_file(engine, path).serialize())
                part.rename(kept)
        return wasmtime.Module.deserialize_file(engine, str(kept))


def main():
    wasm_client.Module = Module
    json.dump(dict(analysed(json.load(sys.stdin))), sys.stdout)


if __name__ == "__main__":
    sys.setrecursionlimit(DEPTH)
    decoder.SetRecursionLimit(DEPTH)
    threading.stack_size(512 * 1024 * 1024)
    thread = threading.Thread(target=main)
    thread.start()
    thread.join()
