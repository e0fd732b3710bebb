"""Draining: what the logs hold goes into the warehouse, each frame exactly once."""

import math
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import cast

import pyarrow as pa

from ingest import health, messages, outbox
from ingest.batches import Batch, Series
from ingest.disk import make_room
from ingest.kind import KindName
from ingest.kinds import KINDS
from ingest.landing import Progress, land_frames, landed_cursor
from ingest.report import Report, Tally
from ingest.segments import START, Cursor, Frame, SegmentReader, prune
from ingest.settings import Market, Settings
from ingest.validation import REJECTS_SCHEMA, Checked, Origin, check

FRAMES_AT_ONCE = 20_000
_MARKETS: tuple[Market, ...] = ("spot", "um")
_NOTE = ".landed"
_LONGEST_PAYLOAD = 10_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
#: What the loop said stays in its log for so long: one that begins learns there what was said.
_SAID_KEPT_S = 2 * 86_400


@dataclass(frozen=True)
class Log:
    """A log to drain; ``market`` is None for that of the scoring loop."""

    name: str
    directory: Path
    market: Market | None


def logs(settings: Settings) -> list[Log]:
    """Return the logs beside the warehouse."""
    found = [Log(name, settings.segments_directory / name, name) for name in _MARKETS]
    found.append(Log("outbox", settings.outbox_directory, None))
    return [log for log in found if log.directory.exists()]


def drain(settings: Settings) -> Report:
    """Land what every log holds, sealed or still growing, a short write session at a time.

    The rows of a stretch of frames and the ledger's row that says how far it reached are one
    transaction: however this ends, the next call goes on where the ledger says.

    Returns
    -------
    Report
        One line per market and kind of which rows landed.

    Raises
    ------
    ingest.warehouse.WarehouseBusyError
        If another process keeps the warehouse file.
    """
    report = Tally().report(batch for log in logs(settings) for batch in _drain(settings, log))
    lines = tuple(line for line in report.lines if line.row_count or line.reject_count)
    return replace(report, lines=lines)


def _drain(settings: Settings, log: Log) -> Iterator[Batch]:
    start = landed_cursor(settings, log.name)
    with SegmentReader(log.directory, start) as reader:
        while frames := reader.read(FRAMES_AT_ONCE):
            parts = _parts(settings, log, frames, source=f"websocket:{log.name}@{start}")
            tables = {name: part.rows for name, part in parts.items() if part.rows.num_rows}
            tables["raw_rejects"] = pa.concat_tables(
                [REJECTS_SCHEMA.empty_table(), *(part.rejects for part in parts.values())]
            )
            progress = Progress(log.name, start, reader.cursor, len(frames))
            if not land_frames(settings, tables, progress):
                return
            start = reader.cursor
            _note(log.directory, start)
            for name, part in parts.items():
                health.LANDED.labels(name).inc(part.rows.num_rows)
                yield Batch(Series(cast(KindName, name), log.market, None), part)
            health.LAST_LANDING.set_to_current_time()
    if log.market:
        make_room(settings, log.directory, start.segment)
    else:
        # Segments are numbered by the millisecond in which they began.
        old = int(1000 * (time.time() - _SAID_KEPT_S))
        prune(log.directory, min(start.segment, old), excess=math.inf)


def waiting(directory: Path) -> int:
    """Return how many frames of a log have not landed, by the note that draining leaves there.

    The warehouse is not asked, which may be held. A kill between landing and the note makes the
    number too high until the next landing.
    """
    note = directory / _NOTE
    cursor = Cursor.parse(note.read_text()) if note.exists() else START
    with SegmentReader(directory, cursor) as reader:
        return sum(len(frames) for frames in iter(reader.read, []))


def waiting_since(directory: Path) -> datetime | None:
    """Return when the oldest frame of a log was heard that has not landed, if there is one."""
    note = directory / _NOTE
    cursor = Cursor.parse(note.read_text()) if note.exists() else START
    with SegmentReader(directory, cursor) as reader:
        frames = reader.read(limit=1)
    return _EPOCH + timedelta(microseconds=frames[0].received_at) if frames else None


def _note(directory: Path, cursor: Cursor) -> None:
    partial = directory / f"{_NOTE}.{os.getpid()}"
    partial.write_text(str(cursor))
    partial.replace(directory / _NOTE)


def _parts(
    settings: Settings, log: Log, frames: Sequence[Frame], *, source: str
) -> dict[str, Checked]:
    """Return what frames hold by raw table; what could not be read is the rejects of "frames"."""
    if log.market is None:
        nothing = REJECTS_SCHEMA.empty_table()
        return {name: Checked(rows, nothing) for name, rows in outbox.rows(frames).items()}
    parsed = messages.rows(frames)
    origin = Origin(settings.exchange, log.market, source, datetime.now(UTC))
    parts = {str(kind): check(KINDS[kind], rows, origin) for kind, rows in parsed.tables.items()}
    rejects = [
        {
            "kind": "frames",
            "exchange": settings.exchange,
            "market": log.market,
            "payload": frame.payload[:_LONGEST_PAYLOAD].decode(errors="replace"),
            "reason": f"{frame.stream}: {reason}",
            "source": source,
            "received_at": _EPOCH + timedelta(microseconds=frame.received_at),
        }
        for frame, reason in parsed.bad
    ]
    parts["frames"] = Checked(pa.table({}), pa.Table.from_pylist(rejects, REJECTS_SCHEMA))
    return parts


if __name__ == "__main__":
    for line in drain(Settings()).lines:
        print(line.series.kind, line.row_count)
