"""Books from recorded changes: a snapshot, then every change in order, seen once a second."""

from collections.abc import Iterator, Sequence
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ingest import books
from ingest.books import Book
from ingest.validation import UnknownLayoutError

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
    book: Book | None = None
    rows: list[Row] = []
    second: int | None = None
    latest: Row | None = None
    for changes in _events(path):
        change = changes[-1]
        if book and latest and second != change["event_time"] // _SECOND_MS:
            rows.append(_row(book, latest))
            latest = None
        while snapshots and snapshots[0]["last_update_id"] <= change["final_update_id"]:
            book = _started(snapshots.pop(0))
        final_id = change["final_update_id"]
        if book is None or final_id <= book.last_update_id:
            continue
        if not book.follows(
            changes[0]["first_update_id"], final_id, changes[0].get("prev_final_update_id")
        ):
            book = None
            continue
        sides = (
            [(row["price"], row["qty"]) for row in changes if row["side"] == side] for side in "ba"
        )
        book.apply(final_id, *sides)
        second, latest = change["event_time"] // _SECOND_MS, change
    if book and latest:
        rows.append(_row(book, latest))
    if not rows:
        raise UnknownLayoutError(f"no snapshot beside {path.name} is continued by its changes")
    return pa.Table.from_pylist(rows)


def _started(snapshot: Row) -> Book:
    bids, asks = (
        dict(zip(snapshot[f"{name}_prices"], snapshot[f"{name}_quantities"], strict=True))
        for name in ("bid", "ask")
    )
    return Book(snapshot["last_update_id"], bids, asks)


def _row(book: Book, change: Row) -> Row:
    bids, asks = book.best()
    return {
        "last_update_id": book.last_update_id,
        "event_time": change["event_time"],
        "transact_time": change.get("transaction_time"),
        "bid_prices": [price for price, _ in bids],
        "bid_quantities": [quantity for _, quantity in bids],
        "ask_prices": [price for price, _ in asks],
        "ask_quantities": [quantity for _, quantity in asks],
        "local_time_ns": change.get("local_time_ns"),
    }


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
