"""What lands together: checked rows of a series, and the row of the ledger that they complete."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.compute as pc

from ingest.kind import Kind, KindName
from ingest.kinds import KINDS
from ingest.settings import Market, Settings
from ingest.validation import Checked


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
