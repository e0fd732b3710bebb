"""LightGBM models exported as ONNX with the same decisions."""

import re

import lightgbm
import numpy as np
import numpy.typing as npt
from onnxmltools.convert import convert_lightgbm
from onnxmltools.convert.common.data_types import FloatTensorType

from ml.onnx_model import INPUT

# What BigQuery ML imports (ONNX Runtime 1.12): opset ≤ 17, ai.onnx.ml ≤ 3, IR ≤ 8, 450 MB.
OPSET_LIMITS = {"": 17, "ai.onnx.ml": 3}
IR_LIMIT = 8
SIZE_LIMIT = 450_000_000

# LightGBM takes values this near to zero for zero.
ZERO_THRESHOLD = np.float32(1e-35)

DECISION_DEFAULT_LEFT = 2
DECISION_MISSING_IS_NAN = 8


class ExportError(RuntimeError):
    """The ONNX form of a model would not decide as the model does, or could not be imported."""


def export(booster: lightgbm.Booster) -> bytes:
    """Return a binary classifier as ONNX with one float32 tensor in and named tensors out.

    The input ``features`` has shape (n, k), NaN where missing; the outputs are ``label`` (n,)
    and ``probabilities`` (n, 2), of false and of true. On float32 values every decision is
    LightGBM's own.

    Raises
    ------
    ExportError
        If the result is beyond what BigQuery ML imports.
    """
    text = re.sub(
        r"^threshold=(.*)\ndecision_type=(.*)$",
        _float32_decisions,
        booster.model_to_string(num_iteration=booster.best_iteration),
        flags=re.MULTILINE,
    )
    # The sizes in bytes no longer hold; without them LightGBM reads the trees one by one.
    text = re.sub(r"^tree_sizes=.*\n", "", text, flags=re.MULTILINE)
    model = convert_lightgbm(
        lightgbm.Booster(model_str=text),
        name="tapehouse",
        initial_types=[(INPUT, FloatTensorType([None, booster.num_feature()]))],
        target_opset=15,
        zipmap=False,
    )
    # The converter keeps them in a set, whose order changes from process to process.
    model.opset_import.sort(key=lambda entry: entry.domain)
    opsets = {entry.domain: entry.version for entry in model.opset_import}
    beyond = {name: opset for name, opset in opsets.items() if opset > OPSET_LIMITS.get(name, 0)}
    onnx: bytes = model.SerializeToString(deterministic=True)
    if beyond or model.ir_version > IR_LIMIT or len(onnx) > SIZE_LIMIT:
        raise ExportError(
            f"the model has opsets {opsets}, IR {model.ir_version} and {len(onnx):,} bytes; "
            f"BigQuery ML imports at most {OPSET_LIMITS}, IR {IR_LIMIT} and {SIZE_LIMIT:,} bytes"
        )
    return onnx


def thresholds(booster: lightgbm.Booster) -> npt.NDArray[np.float32]:
    """Return the distinct float32 thresholds of a booster, ascending."""
    lines = re.findall(r"^threshold=(.*)$", booster.model_to_string(), flags=re.MULTILINE)
    return np.unique(
        _round_down(np.array([float(word) for line in lines for word in line.split()]))
    )


def _round_down(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    nearest = values.astype(np.float32)
    return np.where(
        (nearest > values) | (nearest == -ZERO_THRESHOLD),
        np.nextafter(nearest, np.float32(-np.inf)),
        nearest,
    )


def _float32_decisions(match: re.Match[str]) -> str:
    thresholds = _round_down(np.array([float(word) for word in match[1].split()]))
    decisions = [
        decision if decision >> 2 else _nan_as_zero(threshold)
        for decision, threshold in zip(map(int, match[2].split()), thresholds, strict=True)
    ]
    return (
        f"threshold={' '.join(repr(float(threshold)) for threshold in thresholds)}\n"
        f"decision_type={' '.join(map(str, decisions))}"
    )


def _nan_as_zero(threshold: np.float32) -> int:
    """Spell out what LightGBM does with NaN where training had none: it takes it for zero."""
    return DECISION_MISSING_IS_NAN | (DECISION_DEFAULT_LEFT if threshold >= 0 else 0)
