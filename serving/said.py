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
_ANSWER = ("model_version", *_KEY)
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
    """Signals and features of the answers of one close.

    Parameters
    ----------
    prepared : Prepared
        Who was asked, and by which rules.
    answers : sequence of Answer
        Their answers.
    regimes : pyarrow.Table
        The volatility regimes of the bars.
    since : callable
        Gives the moment, naive UTC, after which the bars closed that rules are applied to.
    """

    def __init__(
        self,
        prepared: Prepared,
        answers: Sequence[Answer],
        regimes: pa.Table,
        *,
        since: Callable[[str], datetime],
    ) -> None:
        self._answers = answers
        decided = prepared.decisions.decide(_predictions(answers), regimes.cast(REGIMES_SCHEMA))
        versions = [each.model.version for each in prepared.asked if each.stage == "champion"]
        self._rules = prepared.decisions.rules_hash(versions)
        ensembles = decided.pop(ENSEMBLES, None)
        if ensembles is not None:
            first = pa.scalar(since(self._rules), pa.timestamp("us"))
            ensembles = ensembles.filter(pc.greater(ensembles["closed_at"], first))
        self._ensembles = ensembles
        self._decided = [
            rows.select([*_ANSWER, "threshold", "signal"]) for rows in decided.values()
        ]

    def signals(self, *, heard_at: datetime, served_at: datetime) -> pa.Table:
        """Return a row per version and bar, and per ensemble and bar."""
        rows = pa.concat_tables([_told(answer) for answer in self._answers])
        if self._decided:
            decided = pa.concat_tables(self._decided, promote_options="permissive")
            places = pc.index_in(_identity(rows, _ANSWER), _identity(decided, _ANSWER))
            for name in ("threshold", "signal"):
                rows = rows.append_column(name, decided[name].take(places))
        if self._ensembles is not None:
            said = self._ensembles.select(
                [*BAR, "ensemble_name", "probability", "signal", "reason"]
            )
            said = said.rename_columns({"ensemble_name": "model_name"})
            said = _with(said, model_version=self._rules, stage="ensemble")
            rows = pa.concat_tables([rows, said], promote_options="permissive")
        rows = _with(rows, heard_at=_instant(heard_at), served_at=_instant(served_at))
        is_late = pc.greater(pc.subtract(rows["served_at"], rows["closed_at"]), LATE)
        return _whole(rows.append_column("is_late", is_late), SCHEMAS["signals"])

    def features(self, signals: pa.Table, *, served_at: datetime) -> pa.Table:
        """Return the features behind signals, a row per dataset and bar."""
        schema = SCHEMAS["served_features"]
        found = {each.asked.dataset: each for each in self._answers if not each.asked.is_stacked}
        # A version that is asked since a moment ago has fewer bars than the others of its dataset.
        for each in self._answers:
            if not each.asked.is_stacked and len(each.rows) > len(found[each.asked.dataset].rows):
                found[each.asked.dataset] = each
        said = _identity(signals, _KEY)
        tables = []
        for dataset, answer in found.items():
            rows = answer.rows.filter(pc.is_in(_identity(answer.rows, _KEY), said))
            names = [name for name in rows.column_names if name not in BAR]
            values = zip(*(rows[name].to_pylist() for name in names), strict=True)
            features = [
                orjson.dumps(dict(zip(names, each, strict=True))).decode() for each in values
            ]
            told = rows.select(BAR).append_column("features", pa.array(features, pa.string()))
            told = _with(told, dataset=dataset, served_at=_instant(served_at))
            tables.append(_whole(told, schema))
        return pa.concat_tables([schema.empty_table(), *tables])


def _told(answer: Answer) -> pa.Table:
    """Return what a version said of each bar, before thresholds."""
    given = [hashlib.sha256(row.tobytes()).hexdigest() for row in answer.matrix]
    columns = {
        **{name: answer.rows[name] for name in BAR},
        "probability": pa.array(answer.probability, pa.float64()),
        "probabilities": pa.array(answer.probabilities, pa.string()),
        "features_sha256": pa.array(given, pa.string()),
    }
    model = answer.asked.model
    return _with(
        pa.table(columns),
        model_name=model.name,
        model_version=model.version,
        stage=answer.asked.stage,
        answered_by=answer.answered_by,
    )


def _with(rows: pa.Table, **constants: str | pa.Scalar) -> pa.Table:
    """Return rows with further columns, each of one value."""
    for name, value in constants.items():
        rows = rows.append_column(name, pa.repeat(value, len(rows)))
    return rows


def _identity(rows: pa.Table, names: Sequence[str]) -> pa.ChunkedArray:
    """Return what tells rows apart by some of their columns."""
    columns = (rows[name] for name in names)
    return pc.binary_join_element_wise(
        *(
            (
                column.cast(pa.timestamp("us")).cast(pa.int64())
                if pa.types.is_timestamp(column.type)
                else column
            ).cast(pa.string())
            for column in columns
        ),
        " ",
    )


def _instant(at: datetime) -> pa.Scalar:
    return pa.scalar(at, pa.timestamp("us"))


def _whole(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    """Return the columns of a schema, whose instants are naive in here; what is missing is NULL."""
    return pa.table(
        [
            rows[name] if name in rows.column_names else pa.nulls(len(rows), kind)
            for name, kind in zip(schema.names, schema.types, strict=True)
        ],
        names=schema.names,
    ).cast(schema)
