"""Models as ONNX: put together, loaded and run, the same way inside DuckDB and in serving."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as _errors

_UNLOADABLE = (
    *(_errors.Fail, _errors.InvalidArgument, _errors.InvalidGraph, _errors.InvalidProtobuf),
    *(_errors.NoSuchFile, _errors.NotImplemented, _errors.RuntimeException),
)
INPUT = "features"
REGISTER_ROWS = 16


def load(path: Path, *, providers: Sequence[str] = ()) -> onnxruntime.InferenceSession:
    """Return a session on one thread for a model file."""
    return session(path.read_bytes(), providers=providers)


def session(onnx: bytes, *, providers: Sequence[str] = ()) -> onnxruntime.InferenceSession:
    """Return a session on one thread for a serialized model.

    Parameters
    ----------
    onnx : bytes
        The model.
    providers : sequence of str
        ONNX Runtime's, the preferred first, such as CUDAExecutionProvider; what they cannot do
        the processor does.

    Raises
    ------
    ValueError
        If it is no model, or none that can run here.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(
            onnx, options, providers=[*providers, "CPUExecutionProvider"]
        )
    except _UNLOADABLE as error:
        raise ValueError(f"ONNX Runtime cannot load the model: {error}") from error


def outputs(
    model: onnxruntime.InferenceSession, features: npt.NDArray[np.float32]
) -> npt.NDArray[np.float64]:
    """Return what a model says of rows.

    Parameters
    ----------
    model : onnxruntime.InferenceSession
        From `load`.
    features : numpy.ndarray
        Shape (n, k), float32, columns in the registry's order; NaN where missing.

    Returns
    -------
    numpy.ndarray
        float64: the probability of each class, shape (n, classes), or the value of a regression,
        shape (n, 1).
    """
    name, columns = next(
        (entry.name, entry.shape[1] if len(entry.shape) > 1 else 1)
        for entry in model.get_outputs()
        if entry.name != "label"
    )
    if not len(features):
        return np.empty((0, columns))
    # The last rows of a batch that fills no vector register take another exponential, up to 2e-16
    # apart: a row must say the same whatever rows stand beside it.
    filled = np.pad(features, ((0, -len(features) % REGISTER_ROWS), (0, 0)))
    found = np.asarray(model.run([name], {INPUT: filled})[0], dtype=np.float64)
    return found.reshape(len(filled), -1)[: len(features)]


def probabilities(
    model: onnxruntime.InferenceSession, features: npt.NDArray[np.float32]
) -> npt.NDArray[np.float64]:
    """Return the probability that the label is true, or the value of a regression.

    Parameters are those of `outputs`.

    Returns
    -------
    numpy.ndarray
        Shape (n,), float64.
    """
    return outputs(model, features)[:, -1]
