"""Walk-forward: one model per fold, trained on what was decided before the fold began."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import duckdb
import numpy as np
import pyarrow

from ml import metrics, transform, weights
from ml.data import Data
from ml.options import Options
from ml.rows import fetch
from ml.search import Chosen
from ml.settings import Settings
from ml.trainers import Float64, Part, TrainingError, trainer

# The latest share of a fold's training time stops the training, as the validation part does.
VALIDATION_SHARE = 0.2


@dataclass(frozen=True)
class Fold:
    """A fold's model and what it said of its test rows.

    Parameters
    ----------
    number : int
        Of the fold.
    train_end_at, test_start_at, test_end_at : datetime
        Naive UTC: the last label the model knew; the first and last close of the test.
    train_rows : int
        Rows learned from.
    metrics : Mapping
        On the test rows.
    keys : pyarrow.Table
        Key columns of the test rows.
    predicted : numpy.ndarray
        Shape (n, classes) or (n, 1).
    """

    number: int
    train_end_at: datetime
    test_start_at: datetime
    test_end_at: datetime
    train_rows: int
    metrics: Mapping[str, float | None]
    keys: pyarrow.Table
    predicted: Float64


def run(
    connection: duckdb.DuckDBPyConnection,
    data: Data,
    parsed: Options,
    settings: Settings,
    chosen: Chosen,
) -> list[Fold]:
    """Train and test every fold of the dataset, oldest first.

    A fold's model learns from rows whose label was decided `embargo_minutes` before the first
    close of the fold: all of them, or with 'sliding' those of as long a time as the first fold's.
    The latest fifth of that time stops the training and is purged from the rest likewise.

    Raises
    ------
    TrainingError
        If there is no fold, or a fold has too little before it.
    """
    if settings.walk_forward is None:
        return []
    done = []
    for number, since, start, end in _spans(connection, data, settings):
        done.append(_fold(connection, data, parsed, settings, chosen, number, (since, start, end)))
    return done


def parts_before(
    connection: duckdb.DuckDBPyConnection, data: Data, settings: Settings
) -> tuple[str, str]:
    """Return conditions of rows to learn from and to judge by, all from before the first fold.

    What chose the options of the folds' models must not lie in what they are tested on.
    """
    _, since, start, _ = _spans(connection, data, settings)[0]
    return _parts(since, start, settings)


def _spans(
    connection: duckdb.DuckDBPyConnection, data: Data, settings: Settings
) -> list[tuple[int, datetime, datetime, datetime]]:
    """Return of each fold its number, from when on it learns, and when its test starts and ends."""
    folds = connection.execute(
        f"select fold_, min(label_start_at), max(label_start_at) from {data.relation} "
        "where fold_ is not null group by fold_ order by 2"
    ).fetchall()
    if not folds:
        raise TrainingError(f"no labelled row has a {settings.fold_column}")
    first_at = connection.execute(f"select min(label_start_at) from {data.relation}").fetchall()[0][
        0
    ]
    length = folds[0][1] - first_at
    is_sliding = settings.walk_forward == "sliding"
    return [
        (int(number), start - length if is_sliding else first_at, start, end)
        for number, start, end in folds
    ]


def _fold(
    connection: duckdb.DuckDBPyConnection,
    data: Data,
    parsed: Options,
    settings: Settings,
    chosen: Chosen,
    number: int,
    times: tuple[datetime, datetime, datetime],
) -> Fold:
    since, start, end = times
    learned, judged = fetch(connection, data, *_parts(since, start, settings), with_times=True)
    if not len(learned.labels) or not len(judged.labels):
        raise TrainingError(
            f"fold {number} has {len(learned.labels):,} rows to learn from and "
            f"{len(judged.labels):,} to stop by, before {start}: start the folds later"
        )
    (tested,) = fetch(connection, data, f"fold_ = {number}", with_keys=True)
    prepared = transform.fit(
        learned.features,
        data.features,
        transform.parse(settings.transform or {}, data.features),
        standardize=chosen.engine in transform.STANDARDIZED,
    )
    graph = prepared.onnx if prepared else None
    training = Part(
        transform.apply(graph, learned.features),
        learned.labels,
        weights.of_rows(learned, data.task, parsed, settings),
    )
    validation = Part(transform.apply(graph, judged.features), judged.labels)
    fitted = trainer(chosen.engine).fit(
        data.task, training, validation, chosen.options, settings.seed
    )
    predicted = fitted.predict(transform.apply(graph, tested.features))
    known = max(learned.end.max(), judged.end.max())
    return Fold(
        number,
        datetime(1970, 1, 1) + timedelta(microseconds=int(known)),
        start,
        end,
        len(learned.labels) + len(judged.labels),
        metrics.evaluate(data.task, tested.labels, predicted),
        tested.keys,
        np.asarray(predicted),
    )


def _parts(since: datetime, start: datetime, settings: Settings) -> tuple[str, str]:
    embargo = timedelta(minutes=settings.embargo_minutes)
    cut = since + (start - since) * (1 - VALIDATION_SHARE)
    return _between(since, cut - embargo), _between(cut, start - embargo)


def _between(since: datetime, until: datetime) -> str:
    return (
        f"label_start_at >= timestamp '{since.isoformat(sep=' ')}' "
        f"and label_end_at <= timestamp '{until.isoformat(sep=' ')}'"
    )


def register(
    connection: duckdb.DuckDBPyConnection, name: str, version: str, data: Data, folds: list[Fold]
) -> None:
    """Write folds and their predictions to the registry."""
    for fold in folds:
        connection.execute(
            "insert into registry.folds values (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [
                *(name, version, fold.number),
                *(fold.train_end_at, fold.test_start_at, fold.test_end_at),
                *(fold.train_rows, len(fold.predicted), json.dumps(fold.metrics)),
            ],
        )
        count = len(fold.predicted)
        columns: dict[str, Any] = {
            "model_name": [name] * count,
            "model_version": [version] * count,
            "fold": [fold.number] * count,
            "prediction": None if data.task.kind == "multiclass" else fold.predicted[:, -1],
            "probabilities": None if not data.task.classes else list(fold.predicted),
        }
        rows = pyarrow.table(
            {name: values for name, values in columns.items() if values is not None}
        )
        for column in fold.keys.column_names:
            rows = rows.append_column(column, fold.keys[column])
        kept = [column for column in rows.column_names if column in OUT_OF_FOLD]
        connection.register("out_of_fold_", rows.select(kept))
        connection.execute("insert into registry.out_of_fold by name select * from out_of_fold_")
        connection.unregister("out_of_fold_")


OUT_OF_FOLD = (
    *("model_name", "model_version", "exchange", "market", "symbol", "interval_minutes"),
    *("opened_at", "fold", "prediction", "probabilities"),
)
