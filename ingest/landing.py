"""Landing: batches of checked rows go into the raw schema through dlt, and the ledger says so.

The ledger row is written after dlt has committed the rows it speaks of. A run that is killed in
between lands those rows again next time, and staging keeps one of each.
"""

import gc
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial

import duckdb
import pyarrow as pa

from ingest import warehouse
from ingest.batches import Batch, Entry, ledger_rows
from ingest.segments import START, Cursor
from ingest.settings import Settings

# dlt is imported where it works, for that takes half a second; its configuration would start the
# telemetry before it could be told not to.
os.environ["RUNTIME__DLTHUB_TELEMETRY"] = "false"

ROWS_AT_ONCE = 500_000
BYTES_AT_ONCE = 128_000_000
_LANDING = threading.Lock()


def land(settings: Settings, batches: Iterable[Batch]) -> Iterator[Batch]:
    """Land batches in short write sessions, and yield each once it is in the warehouse.

    Parameters
    ----------
    settings : Settings
        Names the warehouse; what dlt needs while it works lies in ``dlt_directory``.
    batches : iterable of Batch
        Read while the warehouse is not held, up to about half a million rows at a time.

    Raises
    ------
    ingest.warehouse.WarehouseBusyError
        If another process keeps the warehouse file.
    ingest.clients.CloudError
        If BigQuery, where that is the warehouse, did not take the rows.
    """
    write = _writer(settings)
    waiting: list[Batch] = []
    rows = size = 0
    for batch in batches:
        waiting.append(batch)
        rows += batch.checked.rows.num_rows + batch.checked.rejects.num_rows
        size += batch.checked.rows.nbytes + batch.checked.rejects.nbytes
        if rows >= ROWS_AT_ONCE or size >= BYTES_AT_ONCE:
            yield from write(waiting)
            waiting, rows, size = [], 0, 0
    if waiting:
        yield from write(waiting)


def _writer(settings: Settings) -> Callable[[list[Batch]], list[Batch]]:
    if settings.target == "bigquery":
        from ingest.cloud_landing import CloudLanding

        return CloudLanding(settings).write
    return partial(_write, settings)


@dataclass(frozen=True)
class Progress:
    """How far a log has landed: the place up to which, and from which, and the frames between."""

    log: str
    start: Cursor
    end: Cursor
    frame_count: int


def land_frames(settings: Settings, tables: Mapping[str, pa.Table], progress: Progress) -> bool:
    """Land what a stretch of a log said, and how far it goes, in one transaction.

    Parameters
    ----------
    settings : Settings
        Names the warehouse.
    tables : mapping of str to pyarrow.Table
        Rows by raw table, in its layout; ``raw_rejects`` among them.
    progress : Progress
        The stretch.

    Returns
    -------
    bool
        False if somebody else landed on from its start: then nothing was done.

    Raises
    ------
    ingest.warehouse.WarehouseBusyError
        If another process keeps the warehouse file.
    ingest.clients.CloudError
        If BigQuery, where that is the warehouse, did not take the rows.
    """
    if settings.target == "bigquery":
        from ingest import cloud_stream

        return cloud_stream.land_stretch(settings, tables, progress)
    rejects = tables.get("raw_rejects", ())
    row_count = sum(len(rows) for rows in tables.values()) - len(rejects)
    timeout_s = settings.writer_timeout_s
    with _LANDING, warehouse.writing(settings.database, timeout_s=timeout_s) as connection:
        connection.begin()
        if _landed_cursor(connection, progress.log) != progress.start:
            connection.rollback()
            return False
        for name, rows in tables.items():
            connection.register("landing", rows)
            connection.execute(f"insert into raw.{name} by name select * from landing")
            connection.unregister("landing")
        connection.execute(
            "insert into raw.log_landings values (?, ?, ?, ?, ?, ?, now())",
            [progress.log, *progress.end, progress.frame_count, row_count, len(rejects)],
        )
        connection.commit()
    return True


def landed_cursor(settings: Settings, log: str) -> Cursor:
    """Return the place up to which a log has landed."""
    if settings.target == "bigquery":
        from ingest import cloud_stream

        return cloud_stream.landed_cursor(settings, log)
    if not settings.database.exists():
        return START
    with warehouse.writing(settings.database, timeout_s=settings.writer_timeout_s) as connection:
        return _landed_cursor(connection, log)


def _landed_cursor(connection: duckdb.DuckDBPyConnection, log: str) -> Cursor:
    rows = connection.execute(
        'select segment, "offset" from raw.log_landings where log = ? '
        'order by segment desc, "offset" desc limit 1',
        [log],
    ).fetchall()
    return Cursor(*rows[0]) if rows else START


def _write(settings: Settings, batches: list[Batch]) -> list[Batch]:
    import dlt

    tables: dict[str, list[pa.Table]] = {}
    for batch in batches:
        tables.setdefault(batch.series.kind, []).append(batch.checked.rows)
        tables.setdefault("raw_rejects", []).append(batch.checked.rejects)
    resources = [
        dlt.resource(pa.concat_tables(parts), name=name, write_disposition="append")
        for name, parts in tables.items()
        if sum(part.num_rows for part in parts)
    ]
    entries = [batch.entry for batch in batches if batch.entry]
    timeout_s = settings.writer_timeout_s
    with _LANDING, warehouse.writing(settings.database, timeout_s=timeout_s) as connection:
        if resources:
            _run_dlt(settings, connection, resources)
        _enter(settings, connection, entries)
    # dlt's objects refer to each other in circles and hold the tables: without this, a peak of
    # 1.2 GB that grows with the run, instead of 0.9 GB (2.3 million candles).
    del resources
    gc.collect()
    return batches


def _run_dlt(
    settings: Settings, connection: duckdb.DuckDBPyConnection, resources: list[object]
) -> None:
    import dlt

    # Whoever holds the warehouse is alone here: what lies about was left by a killed run, and
    # its rows are landed again because no ledger row speaks of them.
    shutil.rmtree(settings.dlt_directory, ignore_errors=True)
    settings.dlt_directory.mkdir(parents=True)
    with tempfile.TemporaryDirectory(dir=settings.dlt_directory) as directory:
        pipeline = dlt.pipeline(
            "tapehouse",
            pipelines_dir=directory,
            destination=dlt.destinations.duckdb(connection),
            dataset_name="raw",
        )
        info = pipeline.run(resources, loader_file_format="parquet")
        info.raise_on_failed_jobs()


def _enter(settings: Settings, connection: duckdb.DuckDBPyConnection, entries: list[Entry]) -> None:
    if entries:
        connection.register("ledger", ledger_rows(settings, entries))
        connection.execute("insert into raw.landings by name select * from ledger")
        connection.unregister("ledger")
