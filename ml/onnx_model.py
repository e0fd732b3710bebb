"""Models as ONNX: loaded and run, the same way inside DuckDB and in serving."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime

INPUT = "features"


def load(path: Path) -> onnxruntime.InferenceSession:
    """Return a session on one thread for a model file."""
    return session(path.read_bytes())


def session(onnx: bytes) -> onnxruntime.InferenceSession:
    """Return a session on one thread for a serialized model."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])


def probabilities(
    model: onnxruntime.InferenceSession, features: npt.NDArray[np.float32]
) -> npt.NDArray[np.float64]:
    """Return the probability that the label is true.

    Parameters
    ----------
    model : onnxruntime.InferenceSession
        From `load`.
    features : numpy.ndarray
        Shape (n, k), float32, columns in the registry's order; NaN where missing.

    Returns
    -------
    numpy.ndarray
        Shape (n,), float64.
    """
    if not len(features):
        return np.empty(0)
    return np.asarray(model.run(["probabilities"], {INPUT: features})[0][:, 1], dtype=np.float64)
