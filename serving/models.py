"""The models that the scoring loop asks."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import duckdb
import numpy as np
import numpy.typing as npt
import onnxruntime

from ml import onnx_model, registry

Matrix = npt.NDArray[np.float32]
#: Answers (model, matrix) with what the model says, and with who said it. Shape (n,): the
#: probabilities that the label is true, or the values of a regression; of a model of several
#: classes (n, classes).
Probabilities = Callable[[registry.Model, Matrix], tuple[npt.NDArray[np.float64], str]]


@dataclass(frozen=True)
class Asked:
    """A model version that is asked live.

    Parameters
    ----------
    model : ml.registry.Model
        The version.
    stage : {"champion", "shadow"}
        A shadow's answers are kept, and never announced or voted with.
    dataset : str
        The relation whose rows it is given: what it was trained on or, if it learned from the
        answers of others, those answers.
    file : Path
        Its ONNX file.
    """

    model: registry.Model
    stage: str
    dataset: str
    file: Path

    @property
    def is_stacked(self) -> bool:
        """Whether it is given the answers of other models."""
        return self.dataset.startswith("pred_")


class Local:
    """Models in this process, each on one thread of ONNX Runtime."""

    def __init__(self, asked: Iterable[Asked]) -> None:
        self._sessions: dict[str, onnxruntime.InferenceSession] = {}
        self._newest: dict[str, onnxruntime.InferenceSession] = {}
        self.add(asked)

    def add(self, asked: Iterable[Asked]) -> None:
        """Load versions that will be asked; those of the call before stay, older ones go."""
        newest = {
            each.model.version: self._sessions.get(each.model.version) or onnx_model.load(each.file)
            for each in asked
        }
        self._sessions = self._newest | newest
        self._newest = newest

    def probabilities(
        self, model: registry.Model, matrix: Matrix
    ) -> tuple[npt.NDArray[np.float64], str]:
        """Return what a model says of rows, as `Probabilities` has it."""
        found = onnx_model.outputs(self._sessions[model.version], matrix)
        return (found if model.task == "multiclass" else found[:, -1]), "local"


def asked_models(
    connection: duckdb.DuckDBPyConnection, database: Path
) -> list[tuple[registry.Model, str, Path]]:
    """Return the versions that are asked live, with their stages and files.

    They are the champions of the roles signal and member, and the shadows of the same models.
    """
    champions = registry.active_models(connection, role=None)
    versions = [(model, "champion") for model in champions] + [
        (model, "shadow") for model in registry.shadow_models(connection)
    ]
    return [
        (model, stage, registry.model_file(connection, database, model.sha256))
        for model, stage in versions
        if model.role in ("signal", "member")
    ]
