"""The BigQuery emulator as a child process, run by the python of its own environment.

Its only argument is the directory that holds what `gs://` addresses mean to it. It prints
``{"rest": url, "grpc": host:port, "project": name}`` and ends when its standard input does: with
the process that started it, however that ends.
"""

import asyncio
import json
import os
import re
import sys
from collections.abc import Callable
from contextvars import ContextVar
from pathlib import Path
from typing import Any, TextIO

PROJECT = "tapehouse-emulated"
# Without a limit the emulator takes the machine's memory and is killed.
MEMORY = "2GB"
# An element of a list at a place that is computed, with at most one call in it.
ORDINAL = re.compile(r"(\w+)\[(?:safe_)?ordinal\(((?:[^()]|\([^()]*\))*)\)\]", re.IGNORECASE)


def correct() -> None:
    """Undo things that the emulator gets wrong: see tests/bigquery_differences.py."""
    from bqemulator.domain.result import Ok
    from bqemulator.sql import inner_query, translator
    from sqlglot import exp
    from sqlglot.dialects.bigquery import BigQuery
    from sqlglot.dialects.duckdb import DuckDB

    translate = translator.SQLTranslator.translate

    def translate_rightly(translator: Any, sql: str, **options: Any) -> Any:
        answer = translate(translator, ORDINAL.sub(r"list_extract(\1, \2)", sql), **options)
        if not isinstance(answer, Ok):
            return answer
        duckdb_sql = answer.value.replace("DECIMAL(38, 5)", "DECIMAL(38, 15)")
        return Ok(re.sub(r"\bDECIMAL\b(\(18, 3\)|(?!\())", "DECIMAL(38, 9)", duckdb_sql))

    translator.SQLTranslator.translate = translate_rightly

    def between_brackets(operator: str) -> Callable[[Any, Any], str]:
        def write(generator: Any, node: Any) -> str:
            left, right = (generator.sql(side) for side in (node.this, node.expression))
            return f"(({left}) {operator} ({right}))"

        return write

    # Written without their own brackets they lose them inside of a product.
    DuckDB.Generator.TRANSFORMS[exp.Mod] = between_brackets("%")
    DuckDB.Generator.TRANSFORMS[exp.IntDiv] = between_brackets("//")
    # To find arrays that are named like tables, of which there are none, it copies every query.
    BigQuery.Parser.SUPPORTS_IMPLICIT_UNNEST = False
    # Views are DuckDB's own too: no need to write a statement anew with their text in it.
    inner_query.rewrite_for_row_access = lambda sql, **_: sql


def answer_as_documented() -> None:
    """Name the rows that a stream refuses, and say of a commit again that it was done."""
    from bqemulator.grpc_api import write_servicer
    from bqemulator.streaming.write_stream import WriteStreamState
    from google.cloud.bigquery_storage_v1 import types

    align, refuse = write_servicer._align_to_target, write_servicer._error_response
    servicer = write_servicer.BigQueryWriteHandler
    commit = servicer._handle_batch_commit_write_streams
    codes = types.StorageError.StorageErrorCode

    def why_not(row: Any, schema: Any) -> str:
        try:
            align(row, schema)
        except ValueError as error:
            return str(error)
        return ""

    def align_and_name(rows: Any, schema: Any) -> Any:
        try:
            return align(rows, schema)
        except ValueError as error:
            reasons = [why_not(rows.slice(place, 1), schema) for place in range(rows.num_rows)]
            raise ValueError(json.dumps(reasons)) from error

    def refuse_rows(stream: str, detail: str, **options: Any) -> bytes:
        answer = types.AppendRowsResponse.deserialize(refuse(stream, detail, **options))
        if detail.startswith("["):
            answer.row_errors = [
                types.RowError(index=place, message=reason)
                for place, reason in enumerate(json.loads(detail))
                if reason
            ]
        return types.AppendRowsResponse.serialize(answer)

    def commit_once(servicer: Any, request: bytes, context: Any) -> bytes:
        answer = types.BatchCommitWriteStreamsResponse.deserialize(
            commit(servicer, request, context)
        )
        for error in answer.stream_errors:
            stream = servicer._manager.get(error.entity)
            if stream and stream.state is WriteStreamState.COMMITTED:
                error.code = codes.STREAM_ALREADY_COMMITTED
        return types.BatchCommitWriteStreamsResponse.serialize(answer)

    write_servicer._align_to_target = align_and_name
    write_servicer._error_response = refuse_rows
    servicer._handle_batch_commit_write_streams = commit_once


def keep_job_ids() -> None:
    """Give a load job the id that its client chose, and refuse a second one of that id."""
    from bqemulator.api.routes import upload
    from bqemulator.domain.errors import AlreadyExistsError

    configuration_of, run, new_id = (
        upload._load_configuration_from_envelope,
        upload._run_load,
        upload._new_job_id,
    )
    asked: ContextVar[str | None] = ContextVar("asked", default=None)

    def configuration_with_id(envelope: dict[str, Any]) -> Any:
        job_id = envelope.get("jobReference", {}).get("jobId")
        return {**configuration_of(envelope), "jobId": job_id}

    async def run_once(*, project_id: str, configuration: Any, ctx: Any, **rest: Any) -> Any:
        configuration = dict(configuration)
        job_id = configuration.pop("jobId")
        if job_id and ctx.catalog.get_job(project_id, job_id):
            raise AlreadyExistsError(f"Already Exists: Job {project_id}:US.{job_id}")
        asked.set(job_id)
        return await run(project_id=project_id, configuration=configuration, ctx=ctx, **rest)

    upload._load_configuration_from_envelope = configuration_with_id
    upload._run_load = run_once
    upload._new_job_id = lambda: asked.get() or new_id()


async def serve(directory: Path, answer: TextIO) -> None:
    import duckdb
    import duckdb_extension_spatial
    from bqemulator.config import Settings
    from bqemulator.server import EmulatorServer

    # The emulator asks DuckDB for this extension: it comes from a package, not from the network.
    extension = next(Path(duckdb_extension_spatial.__file__).parent.rglob("*.duckdb_extension"))
    duckdb.execute(f"install '{extension}'")
    correct()
    answer_as_documented()
    keep_job_ids()
    settings = Settings(
        rest_port=0,
        grpc_port=0,
        default_project_id=PROJECT,
        enable_format_extensions=False,
        log_level="warning",
        query_cache_ttl_seconds=0,
        # An answer of the Storage Read API, 65,536 rows, may be as large as a request.
        write_api_max_request_bytes=512 * 1024 * 1024,
        gcs_local_root=directory,
        upload_staging_dir=directory,
    )
    server = EmulatorServer(settings)
    await server.start()
    server._engine.execute(f"set memory_limit = '{MEMORY}'")
    server._engine.execute(f"set temp_directory = '{directory}'")
    try:
        addresses = {"rest": server.rest_url, "grpc": server.grpc_endpoint, "project": PROJECT}
        print(json.dumps(addresses), file=answer, flush=True)
        await asyncio.to_thread(sys.stdin.read)
    finally:
        await server.stop()


if __name__ == "__main__":
    # DuckDB keeps extensions below the home directory: here below the environment.
    os.environ["HOME"] = sys.prefix
    with os.fdopen(os.dup(1), "w") as answer:
        # The emulator logs to the standard output while it is imported.
        os.dup2(2, 1)
        asyncio.run(serve(Path(sys.argv[1]), answer))
