"""What is said of the bars of a close: a row per model version and ensemble, and features."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
import numpy.typing as npt
import orjson
import pyarrow as pa

from ingest.outbox import SCHEMAS
from serving.decisions import ENSEMBLES, PREDICTIONS
from serving.decisions import REGIMES as REGIMES_SCHEMA
from serving.models import Asked, Matrix
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
    probability : numpy.ndarray
        Shape (n,).
    answered_by : str
        Who answered.
    """

    asked: Asked
    rows: pa.Table
    matrix: Matrix
    probability: npt.NDArray[np.float64]
    answered_by: str


class Said:
    """Signals and features of the answers of one close."""

    def __init__(self, prepared: Prepared, answers: Sequence[Answer], regimes: pa.Table) -> None:
        self._answers = answers
        predictions = pa.concat_tables(_predictions(answer) for answer in answers)
        decided = prepared.decisions.decide(predictions, regimes.cast(REGIMES_SCHEMA))
        versions = [each.model.version for each in prepared.asked if each.stage == "champion"]
        self._rules = prepared.decisions.rules_hash(versions)
        self._ensembles = decided.pop(ENSEMBLES, None)
        self._decided = {
            (row["model_version"], *(row[name] for name in _KEY)): row
            for rows in decided.values()
            for row in rows.to_pylist()
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
                "answered_by": answer.answered_by,
                "features_sha256": hashlib.sha256(given.tobytes()).hexdigest(),
            }
            for answer in self._answers
            for bar, probability, given in zip(
                answer.rows.select(BAR).to_pylist(),
                answer.probability.tolist(),
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
            names = [name for name in answer.rows.column_names if name not in BAR]
            for bar in answer.rows.to_pylist():
                key = (answer.asked.dataset, *(bar[name] for name in _KEY))
                if key[1:] in keys:
                    features = {name: bar[name] for name in names}
                    rows[key] = {name: bar[name] for name in BAR} | {
                        "dataset": answer.asked.dataset,
                        "features": orjson.dumps(features).decode(),
                        "served_at": served_at,
                    }
        schema = SCHEMAS["served_features"]
        return pa.Table.from_pylist(list(rows.values()), _naive(schema)).cast(schema)


def _predictions(answer: Answer) -> pa.Table:
    count = len(answer.rows)
    model = answer.asked.model
    columns = {name: answer.rows[name] for name in BAR} | {
        "model_name": pa.repeat(model.name, count),
        "model_version": pa.repeat(model.version, count),
        "stage": pa.repeat(answer.asked.stage, count),
        "probability": pa.array(answer.probability),
    }
    return pa.table(columns).cast(PREDICTIONS)


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
