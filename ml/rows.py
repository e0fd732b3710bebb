"""Rows of a training query, fetched as matrices."""

import os
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow

from ml.data import Data, quote
from ml.trainers import Float32, Float64

BATCH_ROWS = 50_000
# Batches that are being copied while the next is read.
AHEAD = 2
# What tables may hold of DuckDB's memory while one is fetched, looked at once in so many batches.
CACHE_BYTES = 128_000_000
RELEASE_EVERY = 4
CORES = os.cpu_count() or 1
HASH = "row_hash_"
NUMBERS = {"label": "label_value", "hash": HASH, "digest": "row_digest_"}
TIMES = {
    "start": "coalesce(epoch_us(label_start_at), 0)",
    "end": "coalesce(epoch_us(label_end_at), 0)",
    "series": "series_",
}


@dataclass(frozen=True)
class Rows:
    """Rows of a query, in the order of a hash: equal rows give equal bytes however they lay.

    Parameters
    ----------
    features : numpy.ndarray
        Shape (n, k), float32, each column contiguous; NaN where missing.
    labels : numpy.ndarray
        Shape (n,), float64.
    start, end : numpy.ndarray
        Shape (n,): microseconds between which the label was decided; 0 where not known.
    series : numpy.ndarray
        Shape (n,): rows of the same number are one series.
    keys : pyarrow.Table
        The key columns. Times, series and keys are empty where they were not asked for.
    digest : int
        The sum of the rows' digests, as `ml.data.digests` gives it.
    """

    features: Float32
    labels: Float64
    start: npt.NDArray[np.int64]
    end: npt.NDArray[np.int64]
    series: npt.NDArray[np.int64]
    keys: pyarrow.Table
    digest: int


def fetch(
    connection: duckdb.DuckDBPyConnection,
    data: Data,
    *parts: str,
    with_times: bool = False,
    with_keys: bool = False,
) -> list[Rows]:
    """Return the rows of each part, read once, batch by batch into matrices, nothing held twice.

    Parameters
    ----------
    connection : duckdb.DuckDBPyConnection
        The warehouse.
    data : Data
        From `describe`.
    parts : str
        Conditions on the columns of its relation; a row belongs to the first that it meets.
    with_times, with_keys : bool
        Whether to fetch times and series, and the key columns.
    """
    keys = data.keys if with_keys else ()
    numbers = NUMBERS | (TIMES if with_times else {})
    cases = " ".join(f"when {part} then {number}" for number, part in enumerate(parts))
    source = f"(select *, case {cases} end as part_ from {data.relation}) where part_ is not null"
    counts = connection.execute(
        f"select {', '.join(f'count(*) filter (part_ = {number})' for number in range(len(parts)))}"
        f" from {source}"
    ).fetchall()[0]
    filled = [_Filled(count, len(data.features), numbers, keys) for count in counts]
    columns = [
        *(f"coalesce({quote(feature)}, 'nan'::float)" for feature in data.features),
        *numbers.values(),
        *map(quote, keys),
        "part_::utinyint as part_",
    ]
    reader = connection.sql(f"select {', '.join(columns)} from {source}")
    copied: deque[list[Future[None]]] = deque()
    with ThreadPoolExecutor(CORES) as pool:
        for number, batch in enumerate(reader.to_arrow_reader(BATCH_ROWS)):
            part = batch.column("part_").to_numpy()
            copied.append(
                [
                    pool.submit(work, columns)
                    for position, rows in enumerate(filled)
                    for work in rows.take(batch, part == position)
                    for columns in _shares(len(data.features))
                ]
            )
            while len(copied) > AHEAD:
                _wait(copied.popleft())
            if number % RELEASE_EVERY == 0:
                release_cache(connection)
        for left in copied:
            _wait(left)
    return [rows.ordered(with_times=with_times) for rows in filled]


class _Filled:
    """The rows of one part as they come."""

    def __init__(
        self, count: int, width: int, numbers: Mapping[str, str], keys: tuple[str, ...]
    ) -> None:
        self._features = np.empty((count, width), dtype=np.float32, order="F")
        self._numbers = {name: np.empty(count, dtype=np.int64) for name in numbers}
        self._keys, self._named = keys, list[pyarrow.RecordBatch]()
        self._count = 0

    def take(
        self, batch: pyarrow.RecordBatch, is_own: npt.NDArray[np.bool_]
    ) -> list[Callable[[range], None]]:
        """Take what a batch has of the part, and return the work of copying its features."""
        own = np.flatnonzero(is_own)
        if not len(own):
            return []
        # Batches in order are runs, which are put in order with few misses of the cache.
        hashes = batch.column(HASH).to_numpy()
        own = own[np.argsort(hashes[own], kind="stable")]
        rows = slice(self._count, self._count + len(own))
        self._count = rows.stop
        for position, values in enumerate(self._numbers.values(), start=self._features.shape[1]):
            batch.column(position).to_numpy().view(np.int64).take(
                own, out=values[rows], mode="clip"
            )
        if self._keys:
            # A column of a batch keeps all of its columns in memory; what is taken is a copy.
            self._named.append(batch.select(self._keys).take(pyarrow.array(own)))
        return [partial(_copy, self._features[rows], batch, own)]

    def ordered(self, *, with_times: bool) -> Rows:
        """Return the rows in the order of their hash."""
        order = _order(self._numbers["hash"].view(np.uint64))
        in_threads(partial(_reorder, self._features, order), self._features.shape[1])
        none = np.empty(0, dtype=np.int64)
        start, end, series = (self._numbers[name][order] if with_times else none for name in TIMES)
        table = pyarrow.Table.from_batches(self._named).take(order) if self._named else None
        return Rows(
            self._features,
            self._numbers["label"].view(np.float64)[order],
            start,
            end,
            series,
            pyarrow.table({}) if table is None else table,
            _sum(self._numbers["digest"].view(np.uint64)),
        )


def _copy(
    features: Float32, batch: pyarrow.RecordBatch, own: npt.NDArray[np.int64], columns: range
) -> None:
    for position in columns:
        batch.column(position).to_numpy().take(own, out=features[:, position], mode="clip")


def _order(hashes: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
    """Return the order of hashes; their quarters are sorted side by side."""
    found: list[npt.NDArray[np.int64]] = [np.empty(0, dtype=np.int64)] * 4
    quarter = (hashes >> np.uint64(62)).astype(np.uint8)

    def sort(numbers: range) -> None:
        for number in numbers:
            own = np.flatnonzero(quarter == number)
            found[number] = own[np.argsort(hashes[own], kind="stable")]

    in_threads(sort, len(found))
    return np.concatenate(found)


def _reorder(features: Float32, order: npt.NDArray[np.int64], columns: range) -> None:
    ordered = np.empty(len(order), dtype=np.float32)
    for position in columns:
        features[:, position].take(order, out=ordered, mode="clip")
        features[:, position] = ordered


def _sum(values: npt.NDArray[np.uint64]) -> int:
    """Return the exact sum, which has more than 64 bits."""
    half = np.uint64(32)
    return (int((values >> half).sum()) << 32) + int((values << half >> half).sum())


def _shares(columns: int) -> list[range]:
    return [range(first, columns, CORES) for first in range(min(CORES, columns))]


def _wait(work: list[Future[None]]) -> None:
    for done in work:
        done.result()


def in_threads(work: Callable[[range], None], columns: int) -> None:
    """Call a function of parts of the columns, each on a core of its own.

    NumPy leaves Python's lock while it copies, counts and sorts.
    """
    with ThreadPoolExecutor(CORES) as pool:
        _wait([pool.submit(work, share) for share in _shares(columns)])


def release_cache(connection: duckdb.DuckDBPyConnection) -> None:
    """Give back what DuckDB keeps of tables in memory, while a query is being read.

    A table that is read once would otherwise stay beside the matrix made of it. DuckDB has no
    statement for it, but before it refuses a memory limit below what queries hold at the moment,
    it has given back all else; the limit stays.
    """
    with connection.cursor() as other:
        ((used, limit),) = other.execute(
            "select sum(memory_usage_bytes) filter (tag = 'BASE_TABLE'), "
            "current_setting('memory_limit') from duckdb_memory()"
        ).fetchall()
        if used > CACHE_BYTES:
            with suppress(duckdb.OutOfMemoryException):
                # Where nothing is held, the limit is lowered and must be as before.
                other.execute(f"set memory_limit = '1KB'; set memory_limit = '{limit}'")
