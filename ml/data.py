"""What a training query gives, described in the warehouse."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

import duckdb

from ml.options import Options
from ml.settings import Settings
from ml.trainers import Task, TrainingError
from ml.vocabulary import OptionError

NUMBERS = {
    *("TINYINT", "SMALLINT", "INTEGER", "BIGINT"),
    *("UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT", "FLOAT", "DOUBLE"),
}
NUMERIC = NUMBERS | {"BOOLEAN"}
MOST_CLASSES = 1000


@dataclass(frozen=True)
class Data:
    """What the training query gives, apart from its rows.

    Parameters
    ----------
    relation : str
        The labelled rows: features as float32, ``label_value`` (the number of the class, from 0,
        or the value), ``split_``, ``fold_``, ``label_start_at``, ``label_end_at``, ``series_``,
        ``row_hash_``, ``row_digest_`` and the key columns.
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
    """

    relation: str
    features: tuple[str, ...]
    task: Task
    label_type: str
    keys: tuple[str, ...]
    rows: Mapping[str, int]
    end_at: Mapping[str, datetime | None]


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
        f"select split_, count(*), max(label_end_at), count(*) - count(label_value) "
        f"from {relation} group by all order by all"
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
        end_at={part: end_at for part, _, end_at, _ in parts},
    )


def digests(
    connection: duckdb.DuckDBPyConnection, data: Data, known: Mapping[str, int] | None = None
) -> dict[str, int]:
    """Return of each part the sum of its rows' digests, whatever their order.

    Parameters
    ----------
    connection : duckdb.DuckDBPyConnection
        The warehouse.
    data : Data
        From `describe`.
    known : Mapping, optional
        Those of parts that were read already.
    """
    known = known or {}
    part = "coalesce(split_::varchar, '')"
    left = " and ".join([f"{part} <> {_literal(name)}" for name in known] or ["true"])
    found = connection.execute(
        f"select {part}, sum(row_digest_::hugeint) from {data.relation} where {left} group by 1"
    ).fetchall()
    return dict(found) | dict(known)


def hash_of(found: Mapping[str, int]) -> str:
    """Return the hash of a dataset by the digests of its parts."""
    return hashlib.sha256(repr(sorted(found.items())).encode()).hexdigest()


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
    # What is learned and what else is known of the row: whether anything has changed.
    named = (*settings.key_columns, settings.fold_column, settings.label_start_column)
    known = ["row_hash_", *(quote(column) for column in named if column)]
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
        f"hash(row({', '.join(known)})) as row_digest_",
    ]
    is_known = f"{quote(label)} is not null"
    if types[label] in ("FLOAT", "DOUBLE"):
        is_known = f"isfinite({quote(label)})"
    wanted = f"{quote(split)} in ('train', 'validation')"
    if settings.fold_column:
        wanted = f"({wanted} or {quote(settings.fold_column)} is not null)"
    return f"(select {', '.join(columns)} from ({sql}) where {wanted} and {is_known})"


def quote(column: str) -> str:
    """Return an identifier as SQL writes it."""
    return '"' + column.replace('"', '""') + '"'


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
