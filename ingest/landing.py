"""Landing: batches of checked rows go into the raw schema through dlt, and the ledger says so.

The ledger row is written after dlt has committed the rows it speaks of. A run that is killed in
between lands those rows again next time, and staging keeps one of each.
"""

import gc
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from ingest import warehouse
from ingest.kinds import KINDS, Kind, KindName
from ingest.segments import START, Cursor
from ingest.settings import Market, Settings
from ingest.validation import Checked

# dlt is imported where it works, for that takes half a second; its configuration would start the
# telemetry before it could be told not to.
os.environ["RUNTIME__DLTHUB_TELEMETRY"] = "false"

ROWS_AT_ONCE = 500_000
BYTES_AT_ONCE = 128_000_000
_LANDING = threading.Lock()


@dataclass(frozen=True)
class Series:
    """What is ingested: one kind of one symbol, klines of one interval.

    ``symbol``, or what else the kind is about, is None for files that hold many; ``interval`` is
    None except for klines and macro bars; ``market`` is None for what is not traded there.
    """

    kind: KindName
    market: Market | None
    symbol: str | None
    interval: str | None = None


@dataclass(frozen=True)
class Entry:
    """A row of the ledger: what is in the warehouse once its last batch has landed.

    ``covered_from`` and ``covered_until`` (UTC, closed, open) bound the time for which the
    exchange has nothing more to give; None for files.
    """

    series: Series
    source: str
    sha256: str | None = None
    covered_from: datetime | None = None
    covered_until: datetime | None = None
    first_event_at: datetime | None = None
    last_event_at: datetime | None = None
    row_count: int = 0
    reject_count: int = 0


@dataclass(frozen=True)
class Batch:
    """Rows to land, and the ledger row that they complete, if they do."""

    series: Series
    checked: Checked
    entry: Entry | None = None


def unit(parts: Iterable[Checked], entry: Entry) -> Iterator[Batch]:
    """Yield the batches of one archive, file or page; the last completes its ledger row."""
    held: Checked | None = None
    for part in parts:
        if held is not None:
            yield Batch(entry.series, held)
        entry = _counted(entry, part)
        held = part
    if held is not None:
        yield Batch(entry.series, held, entry)


def event_bounds(kind: Kind, rows: pa.Table) -> tuple[datetime | None, datetime | None]:
    """Return the first and last event time of rows in the layout of a raw table."""
    bounds = pc.min_max(pc.coalesce(*(rows[name] for name in kind.event_times)))
    return bounds["min"].as_py(), bounds["max"].as_py()


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


def landed_files(
    settings: Settings, kind: KindName, statement: str = ""
) -> set[tuple[Series, str]]:
    """Return what the ledger holds of a kind: series, and sha256 of the file.

    ``statement`` is what ``source`` must end in: what was said of a file beside its content.
    """
    with _ledger(settings, kind) as connection:
        rows = connection.execute(
            """
            select market, symbol, "interval", sha256
            from raw.landings
            where
                exchange = $exchange
                and kind = $kind
                and sha256 is not null
                and ends_with(source, $statement)
            """,
            {"exchange": settings.exchange, "kind": kind, "statement": statement},
        ).fetchall()
    return {
        (Series(kind, market, symbol, interval), sha256)
        for market, symbol, interval, sha256 in rows
    }


def landed_archives(
    settings: Settings, series: Series, start: datetime, end: datetime
) -> list[tuple[str, datetime, datetime, str]]:
    """Return source, span and sha256, as landed last, of a series' archives in ``[start, end)``."""
    with _ledger(settings, series.kind) as connection:
        rows = connection.execute(
            """
            select source, epoch_us(covered_from), epoch_us(covered_until), sha256
            from raw.landings
            where
                exchange = $exchange
                and kind = $kind
                and market = $market
                and symbol = $symbol
                and "interval" is not distinct from $interval
                and starts_with(source, 'archive:')
                and covered_from < $end
                and covered_until > $start
            qualify row_number() over (partition by source order by landed_at desc) = 1
            order by covered_from
            """,
            {**_key(settings, series), "start": start, "end": end},
        ).fetchall()
    return [
        (source, _instant(first), _instant(last), sha256) for source, first, last, sha256 in rows
    ]


def first_covered(settings: Settings, kind: KindName) -> datetime | None:
    """Return where the history that was taken from the exchange begins, None if there is none."""
    with _ledger(settings, kind) as connection:
        ((first,),) = connection.execute(
            "select epoch_us(min(covered_from)) from raw.landings where kind = ? and exchange = ?",
            [kind, settings.exchange],
        ).fetchall()
    return None if first is None else _instant(first)


def covered(settings: Settings, series: Series) -> list[tuple[datetime, datetime]]:
    """Return the spans of time for which all of a series has landed, in order, merged."""
    with _ledger(settings, series.kind) as connection:
        rows = connection.execute(
            """
            select epoch_us(covered_from), epoch_us(covered_until)
            from raw.landings
            where
                exchange = $exchange
                and kind = $kind
                and market = $market
                and symbol = $symbol
                and "interval" is not distinct from $interval
                and covered_until > covered_from
            order by covered_from
            """,
            _key(settings, series),
        ).fetchall()
    merged: list[tuple[int, int]] = []
    for start, end in rows:
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return [(_instant(start), _instant(end)) for start, end in merged]


def missing(
    settings: Settings, series: Series, start: datetime, end: datetime
) -> list[tuple[datetime, datetime]]:
    """Return the spans of ``[start, end)`` that have not landed, oldest first."""
    spans = []
    cursor = start
    for covered_from, covered_until in covered(settings, series):
        if covered_from > cursor:
            spans.append((cursor, min(covered_from, end)))
        cursor = max(cursor, covered_until)
        if cursor >= end:
            break
    if cursor < end:
        spans.append((cursor, end))
    return [(first, last) for first, last in spans if first < last]


@contextmanager
def _ledger(settings: Settings, kind: KindName) -> Iterator[duckdb.DuckDBPyConnection]:
    """Yield a database that holds the ledger's rows of a kind, wherever the warehouse is."""
    if settings.target == "bigquery":
        from ingest.bigquery import BigQuery, copied

        rows = BigQuery(settings).ledger("landings", exchange=settings.exchange, kind=kind)
        with copied({"raw.landings": rows}) as connection:
            yield connection
    elif settings.database.exists():
        timeout_s = settings.writer_timeout_s
        with warehouse.reading(settings.database, timeout_s=timeout_s) as connection:
            yield connection
    else:
        with duckdb.connect(":memory:") as connection:
            connection.execute(warehouse.RAW_SCHEMA.read_text())
            yield connection


def _key(settings: Settings, series: Series) -> dict[str, str | None]:
    return {
        "exchange": settings.exchange,
        "kind": series.kind,
        "market": series.market,
        "symbol": series.symbol,
        "interval": series.interval,
    }


def _instant(microseconds: int) -> datetime:
    seconds, rest = divmod(microseconds, 1_000_000)
    return datetime.fromtimestamp(seconds, UTC).replace(microsecond=rest)


def _counted(entry: Entry, part: Checked) -> Entry:
    first, last = event_bounds(KINDS[entry.series.kind], part.rows)
    firsts = [time for time in (entry.first_event_at, first) if time]
    lasts = [time for time in (entry.last_event_at, last) if time]
    return replace(
        entry,
        first_event_at=min(firsts, default=None),
        last_event_at=max(lasts, default=None),
        row_count=entry.row_count + part.rows.num_rows,
        reject_count=entry.reject_count + part.rejects.num_rows,
    )


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


def ledger_rows(settings: Settings, entries: Sequence[Entry]) -> pa.Table:
    """Return the rows of the ledger for what lands now."""
    instant = pa.timestamp("us", "UTC")
    return pa.table(
        {
            "kind": pa.array([entry.series.kind for entry in entries], pa.string()),
            "exchange": pa.array([settings.exchange] * len(entries), pa.string()),
            "market": pa.array([entry.series.market for entry in entries], pa.string()),
            "symbol": pa.array([entry.series.symbol for entry in entries], pa.string()),
            "interval": pa.array([entry.series.interval for entry in entries], pa.string()),
            "source": pa.array([entry.source for entry in entries], pa.string()),
            "sha256": pa.array([entry.sha256 for entry in entries], pa.string()),
            "covered_from": pa.array([entry.covered_from for entry in entries], instant),
            "covered_until": pa.array([entry.covered_until for entry in entries], instant),
            "first_event_at": pa.array([entry.first_event_at for entry in entries], instant),
            "last_event_at": pa.array([entry.last_event_at for entry in entries], instant),
            "row_count": pa.array([entry.row_count for entry in entries], pa.int64()),
            "reject_count": pa.array([entry.reject_count for entry in entries], pa.int64()),
            "landed_at": pa.array([datetime.now(UTC)] * len(entries), instant),
        }
    )
