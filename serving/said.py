"""What is said of the bars of a close: a row per model version and ensemble, and features."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
import numpy.typing as npt
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from ingest.outbox import SCHEMAS
from serving.decisions import ENSEMBLES, PREDICTIONS
from serving.decisions import REGIMES as REGIMES_SCHEMA
from serving.models import Asked, Matrix, Probabilities
from serving.prepare import BAR, Prepared

_KEY = BAR[:5]
#: Signals of bars that closed longer ago are late: they are kept, and not announced.
LATE = timedelta(seconds=30)


@dataclass(frozen=True)
class Answer:
    """What a version said of the bars of its dataset.

    Parameters
    ----------
    asked : Asked
        The version.
    rows : pyarrow.Table
        The bars, with the dataset's features.
    matrix : numpy.ndarray
        Shape (n, k), float32: what the version was given.
    found : numpy.ndarray
        What it said: shape (n,), or (n, classes).
    answered_by : str
        Who answered.
    """

    asked: Asked
    rows: pa.Table
    matrix: Matrix
    found: npt.NDArray[np.float64]
    answered_by: str

    @property
    def probability(self) -> list[float]:
        """What it said of each bar in one number; of several classes that of the likeliest."""
        values: list[float] = (
            self.found.max(axis=1) if self.is_of_classes else self.found
        ).tolist()
        return values

    @property
    def probabilities(self) -> list[str | None]:
        """What it said of each of several classes, as JSON, the likelier first."""
        if not self.is_of_classes:
            return [None] * len(self.found)
        classes = self.asked.model.classes
        ordered = np.argsort(-self.found, axis=1, kind="stable")
        return [
            orjson.dumps(
                [{"label": classes[place], "prob": said[place]} for place in places]
            ).decode()
            for places, said in zip(ordered.tolist(), self.found.tolist(), strict=True)
        ]

    @property
    def is_of_classes(self) -> bool:
        """Whether it is of a model of several classes."""
        return self.found.ndim == 2

    def predictions(self) -> pa.Table:
        """Return what the signal models are given of it."""
        count = len(self.rows)
        columns = {name: self.rows[name] for name in BAR} | {
            "model_name": pa.repeat(self.asked.model.name, count),
            "model_version": pa.repeat(self.asked.model.version, count),
            "stage": pa.repeat(self.asked.stage, count),
            "probability": pa.array(self.probability, pa.float64()),
        }
        return pa.table(columns).cast(PREDICTIONS)


def ask(
    prepared: Prepared,
    results: Mapping[str, pa.Table],
    *,
    since: Callable[[str], datetime],
    probabilities: Probabilities,
) -> list[Answer]:
    """Ask every version; those that are given the answers of others last.

    Parameters
    ----------
    prepared : Prepared
        Who is asked.
    results : mapping of str to pyarrow.Table
        The bars of each dataset, with its features.
    since : callable
        Gives the moment, naive UTC, after which the bars closed that a version is asked about.
    probabilities : callable
        Answers.
    """

    def answers(asked: Sequence[Asked], given: Mapping[str, pa.Table]) -> list[Answer]:
        found = (_answer(each, given[each.dataset], since, probabilities) for each in asked)
        return [answer for answer in found if answer is not None]

    first = answers([each for each in prepared.asked if not each.is_stacked], results)
    stacked = [each for each in prepared.asked if each.is_stacked]
    if not (first and stacked):
        return first
    names = {each.dataset for each in stacked}
    votes = {name: prepared.decisions.votes(name, _predictions(first)) for name in names}
    return first + answers(stacked, votes)


def _answer(
    each: Asked, rows: pa.Table, since: Callable[[str], datetime], probabilities: Probabilities
) -> Answer | None:
    first = pa.scalar(since(each.model.version), pa.timestamp("us"))
    rows = rows.filter(pc.greater(rows["closed_at"], first))
    if not len(rows):
        return None
    columns = [rows[name].to_numpy() for name in each.model.features]
    matrix = np.column_stack(columns).astype(np.float32, copy=False)
    found, answered_by = probabilities(each.model, matrix)
    return Answer(each, rows, matrix, found, answered_by)


def _predictions(answers: Sequence[Answer]) -> pa.Table:
    """Return what the signal models are given: of several classes no one is the label."""
    told = [answer.predictions() for answer in answers if not answer.is_of_classes]
    return pa.concat_tables([PREDICTIONS.empty_table(), *told])


class Said:
    """Signals and features of the answers of one close."""

    def __init__(self, prepared: Prepared, answers: Sequence[Answer], regimes: pa.Table) -> None:
        self._answers = answers
        decided = prepared.decisions.decide(_predictions(answers), regimes.cast(REGIMES_SCHEMA))
        versions = [each.model.version for each in prepared.asked if each.stage == "champion"]
        self._rules = prepared.decisions.rules_hash(versions)
        self._ensembles = decided.pop(ENSEMBLES, None)
        self._decided = {
            (row["model_version"], *(row[name] for name in _KEY)): row
            for rows in decided.values()
            for row in rows.select(["model_version", *_KEY, "threshold", "signal"]).to_pylist()
        }

    def signals(self, *, heard_at: datetime, served_at: datetime) -> pa.Table:
        """Return a row per version and bar, and per ensemble and bar."""
        times = {"heard_at": heard_at, "served_at": served_at}
        rows = [
            bar
            | times
            | {
                "model_name": answer.asked.model.name,
                "model_version": answer.asked.model.version,
                "stage": answer.asked.stage,
                "probability": probability,
                "probabilities": probabilities,
                "answered_by": answer.answered_by,
                "features_sha256": hashlib.sha256(given.tobytes()).hexdigest(),
            }
            for answer in self._answers
            for bar, probability, probabilities, given in zip(
                answer.rows.select(BAR).to_pylist(),
                answer.probability,
                answer.probabilities,
                answer.matrix,
                strict=True,
            )
        ]
        for row in rows:
            decided = self._decided.get((row["model_version"], *(row[name] for name in _KEY)), {})
            row |= {name: decided.get(name) for name in ("threshold", "signal")}
        if self._ensembles is not None:
            rows += [
                {name: row[name] for name in (*BAR, "probability", "signal", "reason")}
                | times
                | {
                    "model_name": row["ensemble_name"],
                    "model_version": self._rules,
                    "stage": "ensemble",
                }
                for row in self._ensembles.to_pylist()
            ]
        for row in rows:
            row["is_late"] = served_at - row["closed_at"] > LATE
        return pa.Table.from_pylist(rows, _naive(SCHEMAS["signals"])).cast(SCHEMAS["signals"])

    def features(self, signals: pa.Table, *, served_at: datetime) -> pa.Table:
        """Return the features behind signals, a row per dataset and bar."""
        keys = set(zip(*(_plain(signals[name]) for name in _KEY), strict=True))
        rows = {}
        for answer in self._answers:
            if answer.asked.is_stacked:
                continue
            dataset = answer.asked.dataset
            names = [name for name in answer.rows.column_names if name not in BAR]
            bars = list(zip(*(_plain(answer.rows[name]) for name in _KEY), strict=True))
            new = [
                place
                for place, key in enumerate(bars)
                if key in keys and (dataset, *key) not in rows
            ]
            for bar in answer.rows.take(pa.array(new, pa.int64())).to_pylist():
                features = {name: bar[name] for name in names}
                rows[dataset, *(bar[name] for name in _KEY)] = {name: bar[name] for name in BAR} | {
                    "dataset": dataset,
                    "features": orjson.dumps(features).decode(),
                    "served_at": served_at,
                }
        schema = SCHEMAS["served_features"]
        return pa.Table.from_pylist(list(rows.values()), _naive(schema)).cast(schema)


def _naive(schema: pa.Schema) -> pa.Schema:
    """Return a schema with naive instants, as they are in here."""
    return pa.schema(
        [
            (field.name, pa.timestamp("us") if pa.types.is_timestamp(field.type) else field.type)
            for field in schema
        ]
    )


def _plain(column: pa.ChunkedArray) -> list[object]:
    is_instant = pa.types.is_timestamp(column.type)
    values: list[object] = (column.cast(pa.timestamp("us")) if is_instant else column).to_pylist()
    return values
