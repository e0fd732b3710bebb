"""What a training query gives: described in the warehouse, fetched as matrices."""

import hashlib
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from functools import partial

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow

from ml.options import OptionError, Options
from ml.settings import Settings
from ml.trainers import Float32, Float64, Task, TrainingError

NUMBERS = {
    *("TINYINT", "SMALLINT", "INTEGER", "BIGINT"),
    *("UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT", "FLOAT", "DOUBLE"),
}
NUMERIC = NUMBERS | {"BOOLEAN"}
MOST_CLASSES = 1000
BATCH_ROWS = 50_000
# What tables may hold of DuckDB's memory while one is fetched.
CACHE_BYTES = 128_000_000
CORES = os.cpu_count() or 1


@dataclass(frozen=True)
class Data:
    """What the training query gives, apart from its rows.

    Parameters
    ----------
    relation : str
        The labelled rows: features as float32, ``label_value`` (the number of the class, from 0,
        or the value), ``split_``, ``fold_``, ``label_start_at``, ``label_end_at``, ``series_``,
        ``row_hash_`` and the key columns.
    features : tuple of str
        Feature columns in order.
    task : Task
        What is learned.
    label_type : str
        DuckDB's type of the label.
    keys : tuple of str
        Columns that name a row.
    rows : Mapping
        Number of rows of 'train' and 'validation'.
    end_at : Mapping
        When the last label of each part was decided, naive UTC; None where not known.
    hash : str
        Hash of all rows, independent of their order.
    """

    relation: str
    features: tuple[str, ...]
    task: Task
    label_type: str
    keys: tuple[str, ...]
    rows: Mapping[str, int]
    end_at: Mapping[str, datetime | None]
    hash: str


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


def describe(
    connection: duckdb.DuckDBPyConnection, name: str, sql: str, parsed: Options, settings: Settings
) -> Data:
    """Check a training query and describe what it gives.

    Raises
    ------
    TrainingError
        If a column is absent or no number, a part is empty, or the label does not fit the type.
    OptionError
        If the model learns from more classes than `MOST_CLASSES`.
    """
    described = connection.execute(f"describe ({sql})").fetchall()
    types: dict[str, str] = {row[0]: row[1] for row in described}
    label, split = parsed.label, parsed.split_column
    special = [label, split, *settings.columns]
    absent = [column for column in special if column not in types]
    if absent:
        raise TrainingError(
            f"the query of {name} has no column {', '.join(absent)}; it has {', '.join(types)}"
        )
    features = tuple(column for column in types if column not in special)
    wrong = [f"{column} ({types[column]})" for column in features if not _is_number(types[column])]
    if wrong or not features:
        raise TrainingError(
            f"features of {name} must be numbers, found {', '.join(wrong) or 'none'}: "
            "cast them in the model, name them in key_columns, or leave them out of its select list"
        )
    rows = f"({sql})"
    text = _label_text(connection, name, rows, label, types[label], parsed)
    task = _task(connection, name, f"{rows} where {quote(split)} = 'train'", label, text, parsed)
    if task.kind == "regression":
        value = f"{quote(label)}::double"
    else:
        named = ", ".join(_literal(name) for name in task.classes)
        value = f"(list_position([{named}], {text}) - 1)::double"
    relation = _relation(sql, types, features, settings, label=label, split=split, value=value)
    parts = connection.execute(
        f"select split_, count(*), max(label_end_at), sum(hash(rows_)::hugeint)::varchar, "
        f"count(*) - count(label_value) from {relation} as rows_ group by all order by all"
    ).fetchall()
    found = {part: count for part, count, *_ in parts}
    for part in ("train", "validation"):
        if part not in found:
            raise TrainingError(
                f"the query of {name} has no labelled row with {split} = '{part}': "
                "ingest more history, or change the dataset's shares"
            )
    unseen = sum(missing for *_, missing in parts)
    if unseen:
        raise TrainingError(
            f"{unseen:,} rows of {name} have a {label} that the training part lacks; "
            f"its classes are {', '.join(task.classes)}"
        )
    return Data(
        relation=relation,
        features=features,
        task=task,
        label_type=types[label],
        keys=settings.key_columns,
        rows=found,
        end_at={part: end_at for part, _, end_at, *_ in parts},
        hash=hashlib.sha256(
            repr([(part, digest) for part, _, _, digest, _ in parts]).encode()
        ).hexdigest(),
    )


def _is_number(kind: str) -> bool:
    return kind in NUMERIC or kind.startswith("DECIMAL")


def _label_text(
    connection: duckdb.DuckDBPyConnection,
    name: str,
    rows: str,
    label: str,
    kind: str,
    parsed: Options,
) -> str:
    if not parsed.is_classifier:
        if not _is_number(kind) or kind == "BOOLEAN":
            raise TrainingError(
                f"label {label} of {name} is {kind}; {parsed.model_type} learns numbers"
            )
        return f"{quote(label)}::varchar"
    if kind in ("BOOLEAN", "VARCHAR") or kind.startswith("ENUM"):
        return f"{quote(label)}::varchar"
    if not _is_number(kind):
        raise TrainingError(
            f"label {label} of {name} is {kind}; classes are boolean, text or whole numbers"
        )
    broken = connection.execute(
        f"select {quote(label)} from {rows} where {quote(label)} <> round({quote(label)}) limit 1"
    ).fetchall()
    if broken:
        raise TrainingError(
            f"label {label} of {name} is {kind} with values as {broken[0][0]}, no whole number: "
            "a classifier learns classes, a regressor numbers"
        )
    return f"{quote(label)}::bigint::varchar"


def _task(
    connection: duckdb.DuckDBPyConnection,
    name: str,
    training: str,
    label: str,
    text: str,
    parsed: Options,
) -> Task:
    if not parsed.is_classifier:
        return Task("regression")
    found = connection.execute(
        f"select {text}, count(*) from {training} and {quote(label)} is not null "
        f"group by {quote(label)} order by {quote(label)} limit {MOST_CLASSES + 1}"
    ).fetchall()
    if len(found) == 1:
        raise TrainingError(
            f"label {label} of {name} has one class in the {found[0][1]:,} training rows; "
            "two are needed to learn from"
        )
    if len(found) > MOST_CLASSES:
        raise OptionError(f"label {label} of {name} has more than {MOST_CLASSES:,} classes")
    return Task("binary" if len(found) == 2 else "multiclass", tuple(name for name, _ in found))


def _relation(
    sql: str,
    types: Mapping[str, str],
    features: tuple[str, ...],
    settings: Settings,
    *,
    label: str,
    split: str,
    value: str,
) -> str:
    def of(column: str | None, kind: str) -> str:
        return f"{quote(column)}::{kind}" if column else f"null::{kind}"

    series = [
        column for column in settings.key_columns if not types[column].startswith("TIMESTAMP")
    ]
    learned = [
        *(f"{quote(column)}::float" for column in features),
        *(quote(label), quote(split), of(settings.label_end_column, "timestamp")),
    ]
    columns = [
        *(f"{quote(column)}::float as {quote(column)}" for column in features),
        # Of what is learned alone, so that the order does not hang on what else is selected.
        f"hash(row({', '.join(learned)})) as row_hash_",
        *(quote(column) for column in settings.key_columns),
        f"{value} as label_value",
        f"{quote(split)} as split_",
        f"{of(settings.fold_column, 'integer')} as fold_",
        f"{of(settings.label_start_column, 'timestamp')} as label_start_at",
        f"{of(settings.label_end_column, 'timestamp')} as label_end_at",
        f"hash({', '.join(map(quote, series)) or '0'}) as series_",
    ]
    is_known = f"{quote(label)} is not null"
    if types[label] in ("FLOAT", "DOUBLE"):
        is_known = f"isfinite({quote(label)})"
    wanted = f"{quote(split)} in ('train', 'validation')"
    if settings.fold_column:
        wanted = f"({wanted} or {quote(settings.fold_column)} is not null)"
    return f"(select {', '.join(columns)} from ({sql}) where {wanted} and {is_known})"


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


NONE: npt.NDArray[np.int64] = np.empty(0, dtype=np.int64)
TIMES = {
    "start": "coalesce(epoch_us(label_start_at), 0)",
    "end": "coalesce(epoch_us(label_end_at), 0)",
    "series": "series_",
}


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


def quote(column: str) -> str:
    """Return an identifier as SQL writes it."""
    return '"' + column.replace('"', '""') + '"'


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
