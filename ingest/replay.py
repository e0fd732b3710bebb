"""Books from recorded changes: a snapshot, then every change in order, seen once a second."""

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ingest import books
from ingest.validation import UnknownLayoutError

LEVELS = 20
_SECOND_MS = 1000
_CHANGE_COLUMNS = (
    "event_time",
    "first_update_id",
    "final_update_id",
    "side",
    "price",
    "qty",
)
_OPTIONAL_COLUMNS = ("transaction_time", "prev_final_update_id", "local_time_ns")
Row = dict[str, Any]


@dataclass
class _Book:
    """A book as of an update; changes that do not continue it make it stale."""

    last_update_id: int | None = None
    is_continued: bool = False
    sides: dict[str, dict[float, float]] = field(default_factory=lambda: {"b": {}, "a": {}})

    def start(self, snapshot: Row) -> None:
        self.last_update_id = snapshot["last_update_id"]
        self.is_continued = False
        for side, name in (("b", "bid"), ("a", "ask")):
            prices, quantities = snapshot[f"{name}_prices"], snapshot[f"{name}_quantities"]
            self.sides[side] = dict(zip(prices, quantities, strict=True))

    def follows(self, change: Row) -> bool:
        """Tell whether a change is the next one; the first may overlap the snapshot."""
        if self.last_update_id is None:
            return False
        previous = change.get("prev_final_update_id")
        if not self.is_continued:
            return bool(change["first_update_id"] <= self.last_update_id + 1)
        if previous is not None:
            return bool(previous == self.last_update_id)
        return bool(change["first_update_id"] == self.last_update_id + 1)

    def apply(self, changes: Sequence[Row]) -> None:
        for change in changes:
            side = self.sides[change["side"]]
            if change["qty"] == 0:
                side.pop(change["price"], None)
            else:
                side[change["price"]] = change["qty"]
        self.last_update_id = changes[-1]["final_update_id"]
        self.is_continued = True

    def row(self, change: Row) -> Row:
        bids = heapq.nlargest(LEVELS, self.sides["b"].items())
        asks = heapq.nsmallest(LEVELS, self.sides["a"].items())
        return {
            "last_update_id": self.last_update_id,
            "event_time": change["event_time"],
            "transact_time": change.get("transaction_time"),
            "bid_prices": [price for price, _ in bids],
            "bid_quantities": [quantity for _, quantity in bids],
            "ask_prices": [price for price, _ in asks],
            "ask_quantities": [quantity for _, quantity in asks],
            "local_time_ns": change.get("local_time_ns"),
        }


def is_changes(names: Sequence[str]) -> bool:
    """Return whether the columns are those of changes, one row per changed level."""
    return set(names) >= set(_CHANGE_COLUMNS)


def replay(path: Path, symbol: str) -> pa.Table:
    """Return the best 20 levels after each second in which the book changed.

    Parameters
    ----------
    path : Path
        Parquet file of changes in order, one row per changed level; a quantity of 0 removes it.
    symbol : str
        The snapshots to start from lie beside it as ``depth_snapshot_<symbol>*.parquet``.

    Returns
    -------
    pyarrow.Table
        ``event_time`` is that of the last change of the second. Nothing is returned for changes
        before the first snapshot, or between a break in the sequence and the next snapshot.

    Raises
    ------
    UnknownLayoutError
        If there is no snapshot, or none that the changes continue.
    """
    snapshots = _snapshots(path, symbol)
    book = _Book()
    rows: list[Row] = []
    second: int | None = None
    latest: Row | None = None
    for changes in _events(path):
        change = changes[-1]
        if latest and second != change["event_time"] // _SECOND_MS:
            rows.append(book.row(latest))
            latest = None
        while snapshots and snapshots[0]["last_update_id"] <= change["final_update_id"]:
            book.start(snapshots.pop(0))
        if book.last_update_id is None or change["final_update_id"] <= book.last_update_id:
            continue
        if not book.follows(changes[0]):
            book = _Book()
            continue
        book.apply(changes)
        second, latest = change["event_time"] // _SECOND_MS, change
    if latest:
        rows.append(book.row(latest))
    if not rows:
        raise UnknownLayoutError(f"no snapshot beside {path.name} is continued by its changes")
    return pa.Table.from_pylist(rows)


def _snapshots(path: Path, symbol: str) -> list[Row]:
    files = sorted(path.parent.glob(f"depth_snapshot_{symbol}*.parquet"))
    if not files:
        raise UnknownLayoutError(
            f"{path.name} holds changes of a book, which mean nothing without the book they "
            f"start from: put it beside them as depth_snapshot_{symbol}.parquet"
        )
    rows = [row for file in files for row in books.from_levels(pq.read_table(file)).to_pylist()]
    return sorted(rows, key=itemgetter("last_update_id"))


def _events(path: Path) -> Iterator[list[Row]]:
    with pq.ParquetFile(path) as file:
        names = [*_CHANGE_COLUMNS, *_OPTIONAL_COLUMNS]
        columns = [name for name in names if name in file.schema_arrow.names]
        rows = (
            row for batch in file.iter_batches(20_000, columns=columns) for row in batch.to_pylist()
        )
        for _, changes in groupby(rows, key=itemgetter("final_update_id")):
            yield list(changes)
