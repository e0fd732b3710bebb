"""Rows of a training query, fetched as matrices."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
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
# What tables may hold of DuckDB's memory while one is fetched.
CACHE_BYTES = 128_000_000
CORES = os.cpu_count() or 1
NONE: npt.NDArray[np.int64] = np.empty(0, dtype=np.int64)
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
    """

    features: Float32
    labels: Float64
    start: npt.NDArray[np.int64]
    end: npt.NDArray[np.int64]
    series: npt.NDArray[np.int64]
    keys: pyarrow.Table


def fetch(
    connection: duckdb.DuckDBPyConnection,
    data: Data,
    where: str,
    *,
    with_times: bool = False,
    with_keys: bool = False,
) -> Rows:
    """Return the rows of a condition, batch by batch into one matrix, nothing held twice.

    Parameters
    ----------
    connection : duckdb.DuckDBPyConnection
        The warehouse.
    data : Data
        From `describe`.
    where : str
        A condition on the columns of its relation.
    with_times, with_keys : bool
        Whether to fetch times and series, and the key columns.
    """
    source = f"from {data.relation} as rows_ where {where}"
    count = connection.execute(f"select count(*) {source}").fetchall()[0][0]
    keys = data.keys if with_keys else ()
    asked = {"hash": "row_hash_", "label": "label_value"} | (TIMES if with_times else {})
    columns = [
        *(f"coalesce({quote(feature)}, 'nan'::float)" for feature in data.features),
        *asked.values(),
        *map(quote, keys),
    ]
    width = len(data.features)
    features = np.empty((count, width), dtype=np.float32, order="F")
    numbers = {name: np.empty(count, dtype=np.int64) for name in asked}
    numbers["label"] = numbers["label"].view(np.float64)
    named: list[pyarrow.RecordBatch] = []
    filled = 0
    reader = connection.sql(f"select {', '.join(columns)} {source}").to_arrow_reader(BATCH_ROWS)
    for batch in reader:
        rows = slice(filled, filled + batch.num_rows)
        in_threads(partial(_copy, features, batch, rows), width)
        for position, values in enumerate(numbers.values(), start=width):
            values[rows] = batch.column(position).to_numpy().view(values.dtype)
        if keys:
            # A column of a batch keeps all of its columns in memory; what is taken is a copy.
            named.append(batch.select(keys).take(pyarrow.array(np.arange(batch.num_rows))))
        filled += batch.num_rows
        if filled < count:
            release_cache(connection)
    order = np.argsort(numbers["hash"].view(np.uint64), kind="stable")
    in_threads(partial(_reorder, features, order), width)
    start, end, series = (numbers[name][order] if with_times else NONE for name in TIMES)
    table = pyarrow.Table.from_batches(named).take(order) if named else pyarrow.table({})
    return Rows(features, numbers["label"][order], start, end, series, table)


def _copy(features: Float32, batch: pyarrow.RecordBatch, rows: slice, columns: range) -> None:
    for position in columns:
        features[rows, position] = batch.column(position).to_numpy()


def _reorder(features: Float32, order: npt.NDArray[np.int64], columns: range) -> None:
    ordered = np.empty(len(order), dtype=np.float32)
    for position in columns:
        features[:, position].take(order, out=ordered, mode="clip")
        features[:, position] = ordered


def in_threads(work: Callable[[range], None], columns: int) -> None:
    """Call a function of parts of the columns, each on a core of its own.

    NumPy leaves Python's lock while it copies, counts and sorts.
    """
    with ThreadPoolExecutor(CORES) as pool:
        for done in [pool.submit(work, range(first, columns, CORES)) for first in range(CORES)]:
            done.result()


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
