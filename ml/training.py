"""Training in the warehouse: a query in, a registered model out."""

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from time import perf_counter
from typing import Any

import duckdb
import lightgbm
import numpy as np
import numpy.typing as npt
import pyarrow

from ml import onnx_export, onnx_model, options, registry

# On DuckDB a model stops where this many rounds in a row brought nothing on the validation part.
EARLY_STOP_ROUNDS = 30
# Threads wait for each other after every split, spinning: 26,000 rows of 80 features, 100 rounds,
# take 1.1 s on one thread and 40 s on four of a machine that is busy. The model is the same.
VALUES_PER_THREAD = 4_000_000
PARITY_TOLERANCE = 1e-6
PARITY_ROWS = 10_000
STORED_ROWS = 100
TRAINER = f"lightgbm {lightgbm.__version__}"
NUMERIC = {
    *("BOOLEAN", "TINYINT", "SMALLINT", "INTEGER", "BIGINT"),
    *("UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT", "FLOAT", "DOUBLE"),
}


class TrainingError(ValueError):
    """A query does not give what a model needs."""


@dataclass(frozen=True)
class Data:
    """What the training query gives, apart from its rows.

    Parameters
    ----------
    relation : str
        The labelled rows of training and validation, features as float32.
    features : tuple of str
        Feature columns in order.
    label, split : str
        Column names.
    rows : Mapping
        Number of rows of 'train' and 'validation'.
    end_at : Mapping
        When the last label of each part was decided, naive UTC; None where not known.
    hash : str
        Hash of all rows, independent of their order.
    """

    relation: str
    features: tuple[str, ...]
    label: str
    split: str
    rows: Mapping[str, int]
    end_at: Mapping[str, datetime | None]
    hash: str


@dataclass(frozen=True)
class Fit:
    """A trained booster and the record of its rounds.

    Parameters
    ----------
    booster : lightgbm.Booster
        Cut to its best round.
    rounds : tuple of tuple
        Per round: loss on training, loss on validation, milliseconds.
    validation : numpy.ndarray
        Shape (n, k), float32: the validation part's features.
    """

    booster: lightgbm.Booster
    rounds: tuple[tuple[float, float, int], ...]
    validation: npt.NDArray[np.float32]


def train(
    connection: duckdb.DuckDBPyConnection,
    name: str,
    sql: str,
    *,
    given: Mapping[str, Any],
    label_end_column: str | None,
    stage: str,
    seed: int,
    database: Path,
    git_revision: str | None,
) -> dict[str, Any]:
    """Train a model on a query and register it, unless nothing has changed since the last time.

    Parameters
    ----------
    connection : duckdb.DuckDBPyConnection
        A cursor of its own; the registry row is committed after the model file is on disk.
    name : str
        The model's name.
    sql : str
        A SELECT whose columns are features, except for the label, the split and
        `label_end_column`. Rows whose split is 'train' are learned from, 'validation' stops
        the training, others are not read.
    given : Mapping
        Options in BigQuery ML's vocabulary.
    label_end_column : str or None
        The column that says when a row's label was decided, naive UTC.
    stage : {"active", "baseline"}
        What the model is for.
    seed : int
        Seed of row and column sampling; equal inputs and seeds give equal bytes.
    database : Path
        The warehouse file; the model file goes to ``models/`` beside it.
    git_revision : str or None
        The project's commit, recorded with the model.

    Returns
    -------
    dict
        ``status`` ('trained' or 'unchanged'), ``model_version`` and what the log should say.

    Raises
    ------
    ml.options.OptionError
        If an option is unknown, missing or wrong.
    TrainingError
        If a column is not a number, a part is empty or the label has one class.
    ml.onnx_export.ExportError
        If the ONNX model does not agree with the trained one.
    """
    parsed = options.parse(given)
    connection.execute("begin")
    data = _describe(connection, name, sql, parsed, label_end_column)
    inputs = {
        "stage": stage,
        "options": json.dumps(dict(given), sort_keys=True),
        "data_hash": data.hash,
        "sql_hash": hashlib.sha256(sql.encode()).hexdigest(),
        "seed": seed,
        "trainer": TRAINER,
    }
    version = _version_with(connection, name, inputs)
    if version is not None:
        connection.execute("rollback")
        return {"status": "unchanged", "model_version": version}

    fit = _fit(connection, data, parsed, seed)
    onnx = onnx_export.export(fit.booster)
    sample = _parity_sample(fit, onnx, seed)
    sha256 = registry.write_model_file(database, onnx).stem
    best = max(fit.booster.best_iteration, 1)
    losses = dict(zip(("train", "validation"), fit.rounds[best - 1][:2], strict=True))
    row = inputs | {
        "model_name": name,
        "model_version": sha256[:16],
        "model_type": parsed.model_type,
        "features": list(data.features),
        "label": data.label,
        "train_end_at": data.end_at["train"],
        "validation_end_at": data.end_at["validation"],
        "train_rows": data.rows["train"],
        "validation_rows": data.rows["validation"],
        "data_watermark": max(filter(None, data.end_at.values()), default=None),
        "git_revision": git_revision,
        "metrics": json.dumps({"iterations": best, "log_loss": losses}),
        "onnx": onnx,
        "onnx_sha256": sha256,
        "parity_sample": sample,
    }
    _register(connection, row, fit, data, learning_rate=parsed.training["learn_rate"])
    connection.execute("commit")
    return {
        "status": "trained",
        "model_version": sha256[:16],
        "iterations": best,
        "log_loss": losses,
        "train_rows": data.rows["train"],
        "validation_rows": data.rows["validation"],
    }


def _describe(
    connection: duckdb.DuckDBPyConnection,
    name: str,
    sql: str,
    parsed: options.Options,
    label_end_column: str | None,
) -> Data:
    label, split = parsed.label, parsed.split_column
    described = connection.execute(f"describe ({sql})").fetchall()
    types = {row[0]: row[1] for row in described}
    special = [column for column in (label, split, label_end_column) if column]
    absent = [column for column in special if column not in types]
    if absent:
        raise TrainingError(
            f"the query of {name} has no column {', '.join(absent)}; it has {', '.join(types)}"
        )
    if types[label] != "BOOLEAN":
        raise TrainingError(f"label {label} of {name} is {types[label]}; a BOOLEAN is expected")
    features = tuple(column for column in types if column not in special)
    wrong = [f"{column} ({types[column]})" for column in features if types[column] not in NUMERIC]
    if wrong or not features:
        raise TrainingError(
            f"features of {name} must be numbers, found {', '.join(wrong) or 'none'}: "
            "cast them in the model, or leave them out of its select list"
        )

    ended = _quote(label_end_column) if label_end_column else "null::timestamp"
    columns = ", ".join(f"{_quote(column)}::float as {_quote(column)}" for column in features)
    relation = (
        f"(select {columns}, {_quote(label)}, {_quote(split)}, {ended} as label_end_at "
        f"from ({sql}) where {_quote(split)} in ('train', 'validation') "
        f"and {_quote(label)} is not null)"
    )
    parts = connection.execute(
        f"select {_quote(split)}, count(*), count(distinct {_quote(label)}), max(label_end_at), "
        f"sum(hash(rows_)::hugeint)::varchar from {relation} as rows_ group by all order by all"
    ).fetchall()
    found = {part: rows for part, rows, *_ in parts}
    for part in ("train", "validation"):
        if part not in found:
            raise TrainingError(
                f"the query of {name} has no labelled row with {split} = '{part}': "
                "ingest more history, or change the dataset's shares"
            )
    if {part: classes for part, _, classes, *_ in parts}["train"] < 2:
        raise TrainingError(
            f"label {label} of {name} has one class in the {found['train']:,} training rows; "
            "two are needed to learn from"
        )
    return Data(
        relation=relation,
        features=features,
        label=label,
        split=split,
        rows=found,
        end_at={part: end_at for part, _, _, end_at, _ in parts},
        hash=hashlib.sha256(
            repr([(part, digest) for part, *_, digest in parts]).encode()
        ).hexdigest(),
    )


def _version_with(
    connection: duckdb.DuckDBPyConnection, name: str, inputs: Mapping[str, Any]
) -> str | None:
    same = " and ".join(f"{column} = ${column}" for column in inputs)
    found = connection.execute(
        f"select model_version from registry.active_models where model_name = $name and {same}",
        {**inputs, "name": name},
    ).fetchone()
    return found[0] if found else None


def _fit(
    connection: duckdb.DuckDBPyConnection, data: Data, parsed: options.Options, seed: int
) -> Fit:
    values = data.rows["train"] * len(data.features)
    parameters = parsed.lightgbm | {
        "num_threads": min(values // VALUES_PER_THREAD + 1, os.cpu_count() or 1),
        "objective": "binary",
        "metric": "binary_logloss",
        "seed": seed,
        "deterministic": True,
        "force_row_wise": True,
        "verbosity": -1,
    }
    training, learned = _part(connection, data, "train")
    validation, judged = _part(connection, data, "validation")
    train_set = lightgbm.Dataset(training, label=learned, params=parameters)
    validation_set = lightgbm.Dataset(validation, label=judged, reference=train_set)
    losses: dict[str, dict[str, list[float]]] = {}
    finished_at = [perf_counter()]
    callbacks: list[Callable[..., Any]] = [
        lightgbm.record_evaluation(losses),
        lambda _: finished_at.append(perf_counter()),
    ]
    if parsed.training["early_stop"]:
        # Progress relative to the loss of a fair coin, ln 2.
        minimum = parsed.training["min_rel_progress"] * float(np.log(2))
        callbacks.append(
            lightgbm.early_stopping(EARLY_STOP_ROUNDS, min_delta=minimum, verbose=False)
        )
    booster = lightgbm.train(
        parameters,
        train_set,
        num_boost_round=parsed.training["max_iterations"],
        valid_sets=[train_set, validation_set],
        valid_names=["train", "validation"],
        callbacks=callbacks,
    )
    milliseconds = [round(1000 * seconds) for seconds in np.diff(finished_at)]
    rounds = zip(
        losses["train"]["binary_logloss"],
        losses["validation"]["binary_logloss"],
        milliseconds,
        strict=True,
    )
    return Fit(booster, tuple(rounds), _matrix(validation.slice(0, PARITY_ROWS)))


def _part(
    connection: duckdb.DuckDBPyConnection, data: Data, part: str
) -> tuple[pyarrow.Table, npt.NDArray[np.float32]]:
    # In the order of a hash, equal rows give equal bytes however the table was stored.
    columns = ", ".join(map(_quote, data.features))
    table = connection.sql(
        f"select {columns}, {_quote(data.label)}::float as label_value "
        f"from {data.relation} as rows_ where {_quote(data.split)} = '{part}' order by hash(rows_)"
    ).to_arrow_table()
    labels = table.column("label_value").to_numpy().astype(np.float32)
    return table.select(list(data.features)), labels


def _parity_sample(fit: Fit, onnx: bytes, seed: int) -> list[dict[str, Any]]:
    """Hold the ONNX model against the booster on real rows and on rows made of its thresholds."""
    generator = np.random.default_rng(seed)
    thresholds = onnx_export.thresholds(fit.booster)
    edges = np.concatenate(
        [
            thresholds,
            np.nextafter(thresholds, np.float32(np.inf)),
            np.array([0, np.nan], dtype=np.float32),
        ]
    )
    rows = np.concatenate([fit.validation, generator.choice(edges, fit.validation.shape)])
    exported = onnx_model.probabilities(onnx_model.session(onnx), rows)
    difference = float(np.max(np.abs(exported - fit.booster.predict(rows, num_threads=1))))
    if difference > PARITY_TOLERANCE:
        raise onnx_export.ExportError(
            f"the ONNX model differs from LightGBM by {difference:.1e} on {len(rows):,} rows; "
            f"at most {PARITY_TOLERANCE:.0e} is allowed"
        )
    stored = generator.choice(len(rows), min(STORED_ROWS, len(rows)), replace=False)
    return [
        {"features": rows[index].tolist(), "probability": float(exported[index])}
        for index in sorted(stored)
    ]


def _register(
    connection: duckdb.DuckDBPyConnection,
    row: Mapping[str, Any],
    fit: Fit,
    data: Data,
    *,
    learning_rate: float,
) -> None:
    columns = ", ".join(row)
    values = ", ".join(f"${column}" for column in row)
    connection.execute(
        f"insert into registry.models ({columns}, registered_at) "
        f"values ({values}, get_current_timestamp() at time zone 'UTC')",
        dict(row),
    )
    key = [row["model_name"], row["model_version"]]
    known = "select 1 from registry.training_info where model_name = ? and model_version = ?"
    if connection.execute(known, key).fetchall():
        return
    connection.executemany(
        "insert into registry.training_info values (?, ?, 0, ?, ?, ?, ?, ?)",
        [
            [*key, iteration, loss, eval_loss, learning_rate, milliseconds]
            for iteration, (loss, eval_loss, milliseconds) in enumerate(fit.rounds, start=1)
        ],
    )
    connection.executemany(
        "insert into registry.feature_importance values (?, ?, ?, ?, ?, ?)",
        [[*key, *importance] for importance in _importance(fit.booster, data.features)],
    )


def _importance(
    booster: lightgbm.Booster, features: Sequence[str]
) -> list[tuple[str, int, float, float]]:
    """Return XGBoost's weight (splits), mean gain and mean cover (rows) of each feature."""
    splits: list[list[dict[str, Any]]] = [[] for _ in features]
    pending = [tree["tree_structure"] for tree in booster.dump_model()["tree_info"]]
    while pending:
        node = pending.pop()
        if "split_feature" in node:
            splits[node["split_feature"]].append(node)
            pending += [node["left_child"], node["right_child"]]
    return [
        (
            feature,
            len(nodes),
            sum(node["split_gain"] for node in nodes) / max(len(nodes), 1),
            sum(node["internal_count"] for node in nodes) / max(len(nodes), 1),
        )
        for feature, nodes in zip(features, splits, strict=True)
    ]


def _matrix(table: pyarrow.Table) -> npt.NDArray[np.float32]:
    columns = [column.to_numpy().astype(np.float32) for column in table.itercolumns()]
    return np.column_stack(columns)


def _quote(column: str) -> str:
    return '"' + column.replace('"', '""') + '"'
