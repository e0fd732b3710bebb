"""From the rows of a query to a model; what is kept of the rows fits in little memory."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import duckdb

from ml import inspection, search, transform, walk_forward, weights
from ml.data import Data
from ml.options import Options
from ml.rows import Rows, fetch
from ml.settings import Settings
from ml.trainers import Fitted, Part, TrainingError

# Rows of the validation part that explain the model and on which its file is held against it.
KEPT_ROWS = 10_000


@dataclass(frozen=True)
class Learned:
    """A model and what its training leaves behind.

    Parameters
    ----------
    chosen : ml.search.Chosen
        What it was trained with.
    fitted : ml.trainers.Fitted
        The model.
    transform : ml.transform.Transform or None
        What turns features into what the model takes.
    trials : list of ml.search.Trial
        All, in order.
    best : int
        The index of the trial that was kept.
    metrics : Mapping
        On the validation part.
    told : ml.inspection.Told
        What inspection needs of the rows, which are not kept.
    digests : Mapping
        Of both parts, as `ml.data.digests` gives them.
    """

    chosen: search.Chosen
    fitted: Fitted
    transform: transform.Transform | None
    trials: list[search.Trial]
    best: int
    metrics: Mapping[str, float | None]
    told: inspection.Told
    digests: Mapping[str, int]


def learn(
    connection: duckdb.DuckDBPyConnection, data: Data, parsed: Options, settings: Settings
) -> Learned:
    """Learn from the training part; the validation part stops the training and judges trials.

    The trials of a model that walks forward are judged before its first fold instead: its folds
    test the validation part too, and what chose their options must not.

    Raises
    ------
    TrainingError
        If there are no rows to judge trials by, or no trial gave a model.
    """
    tried = None
    if parsed.search is not None and settings.walk_forward is not None:
        tried = _before_folds(connection, data, parsed, settings)
    training, validation = fetch(
        connection,
        data,
        *("split_ = 'train'", "split_ = 'validation'"),
        with_times=settings.weighs_by_time,
    )
    statistics = inspection.statistics(training.features)
    prepared = _Prepared(data, training, validation, parsed, settings)
    if tried is None:
        found = search.find(data.task, parsed, prepared.parts, settings.seed)
    else:
        last = search.fit(data.task, tried.chosen, prepared.parts, settings.seed)
        found = replace(last, trials=tried.trials, best=tried.best)
    return Learned(
        found.chosen,
        found.fitted,
        prepared.transform(found.chosen.engine),
        found.trials,
        found.best,
        found.metrics,
        inspection.Told(
            statistics,
            validation.features[:KEPT_ROWS].copy(order="C"),
            validation.labels,
            found.predicted,
        ),
        {"train": training.digest, "validation": validation.digest},
    )


def _before_folds(
    connection: duckdb.DuckDBPyConnection, data: Data, parsed: Options, settings: Settings
) -> search.Found:
    learned, judged = fetch(
        connection,
        data,
        *walk_forward.parts_before(connection, data, settings),
        with_times=settings.weighs_by_time,
    )
    if not len(learned.labels) or not len(judged.labels):
        raise TrainingError(
            f"there are {len(learned.labels):,} rows to learn from and {len(judged.labels):,} to "
            "judge trials by before the first fold: start the folds later"
        )
    prepared = _Prepared(data, learned, judged, parsed, settings)
    return search.find(data.task, parsed, prepared.parts, settings.seed)


class _Prepared:
    """The parts as each engine takes them: two transforms at most, each made when asked for."""

    def __init__(
        self, data: Data, training: Rows, validation: Rows, parsed: Options, settings: Settings
    ) -> None:
        self._data, self._training, self._validation = data, training, validation
        self._calls = transform.parse(settings.transform or {}, data.features)
        self._weights = weights.of_rows(training, data.task, parsed, settings)
        self._transforms: dict[bool, transform.Transform | None] = {}
        self._parts: dict[bool, tuple[Part, Part]] = {}

    def transform(self, engine: str) -> transform.Transform | None:
        """Return the transform of an engine."""
        standardize = engine in transform.STANDARDIZED
        if standardize not in self._transforms:
            self._transforms[standardize] = transform.fit(
                self._training.features, self._data.features, self._calls, standardize=standardize
            )
        return self._transforms[standardize]

    def parts(self, engine: str) -> tuple[Part, Part]:
        """Return the parts of training and validation as an engine takes them."""
        standardize = engine in transform.STANDARDIZED
        if standardize not in self._parts:
            fitted = self.transform(engine)
            graph = fitted.onnx if fitted else None
            self._parts[standardize] = (
                Part(
                    transform.apply(graph, self._training.features),
                    self._training.labels,
                    self._weights,
                ),
                Part(transform.apply(graph, self._validation.features), self._validation.labels),
            )
        return self._parts[standardize]
