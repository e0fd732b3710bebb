"""Models that live elsewhere, behind the Open Inference Protocol, and the local ones for when
they do not answer.
"""

import asyncio
import threading
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Self

import aiohttp
import numpy as np
import numpy.typing as npt

from ingest import health, logs
from ingest.service_settings import RemoteModel, Services
from ingest.services import MalformedError, Service, UnavailableError
from ml.onnx_model import INPUT
from ml.registry import Model
from serving.protocol import ProtocolError, decode, encode

Matrix = npt.NDArray[np.float32]
Probabilities = npt.NDArray[np.float64]
Local = Callable[[Model, Matrix], tuple[Probabilities, str]]

_log = logs.logger("remote")


class Remote:
    """Asks remote models where some are configured, and the local ones otherwise.

    Requests run in an event loop of their own thread, over connections that stay open. May be
    asked from several threads.

    Parameters
    ----------
    services : Services
        Which models are remote.
    local : callable
        Answers for the others, and where a remote model gives no answer.
    budgets : Path
        Directory where requests are counted.
    """

    def __init__(self, services: Services, local: Local, *, budgets: Path) -> None:
        self._local = local
        self._models = {
            name: (remote, Service(name, remote, budgets))
            for name, remote in services.models.items()
        }
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="remote", daemon=True)
        self._session: aiohttp.ClientSession | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        self._session = asyncio.run_coroutine_threadsafe(_open_session(), self._loop).result()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._session is not None:
            asyncio.run_coroutine_threadsafe(self._session.close(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def probabilities(self, model: Model, matrix: Matrix) -> tuple[Probabilities, str]:
        """Return what a model says of rows, and which model said it.

        Parameters
        ----------
        model : Model
            The champion that is asked.
        matrix : numpy.ndarray
            Shape (n, k), float32, the model's features in order; NaN where missing.

        Returns
        -------
        numpy.ndarray, str
            float64, shape (n,): the probability that the label is true, or the value of a
            regression; of a model of several classes (n, classes). Then
            ``host:port/name/version`` of the remote model, or what the local one calls itself.
        """
        configured = self._models.get(model.name)
        if configured is None or not len(matrix):
            return self._local(model, matrix)
        remote, service = configured
        if self._session is None:
            raise RuntimeError("Remote is a context manager: enter it first")
        answer = asyncio.run_coroutine_threadsafe(
            _answer(self._session, service, remote, model, matrix), self._loop
        )
        try:
            return answer.result()
        except UnavailableError as error:
            health.FALLBACKS.labels(service.name, error.reason).inc()
            _log.warning("fallback", model=model.name, reason=error.reason, error=str(error))
            return self._local(model, matrix)


async def _open_session() -> aiohttp.ClientSession:
    return aiohttp.ClientSession()


async def _answer(
    session: aiohttp.ClientSession,
    service: Service,
    remote: RemoteModel,
    model: Model,
    matrix: Matrix,
) -> tuple[Probabilities, str]:
    name, version = remote.name or model.name, remote.version or model.version
    size = remote.rows_per_request
    parts = [matrix[start : start + size] for start in range(0, len(matrix), size)]
    requests = [
        service.post(
            session,
            f"/v2/models/{name}/versions/{version}/infer",
            *_request(part, binary=remote.tensors == "binary"),
            partial(_read, model=model, version=version, rows=len(part)),
        )
        for part in parts
    ]
    # All end before the fallback answers: what is cancelled would count against the breaker.
    answers = await asyncio.gather(*requests, return_exceptions=True)
    found = [answer for answer in answers if not isinstance(answer, BaseException)]
    for answer in answers:
        if isinstance(answer, BaseException):
            raise answer
    return np.concatenate(found), f"{remote.host}/{name}/{version}"


def _request(rows: Matrix, *, binary: bool) -> tuple[bytes, dict[str, str]]:
    fields = {"parameters": {"binary_data_output": True}} if binary else {}
    return encode(fields, "inputs", {INPUT: rows}, binary=binary)


def _read(
    body: bytes, headers: Mapping[str, str], *, model: Model, version: str, rows: int
) -> Probabilities:
    try:
        fields, tensors = decode(body, headers, "outputs")
    except ProtocolError as error:
        raise MalformedError(f"{model.name}: {error}") from error
    answered = fields.get("model_version", version)
    if answered != version:
        raise MalformedError(f"{model.name}: version {answered} answered instead of {version}")
    values = next((tensor for name, tensor in tensors.items() if name != "label"), None)
    if values is None or not values.ndim or len(values) != rows or not values.size:
        shape = None if values is None else values.shape
        raise MalformedError(f"{model.name}: answer of shape {shape} for {rows} rows")
    found = values.reshape(rows, -1).astype(np.float64)
    if model.task != "multiclass":
        found = found[:, -1]
    elif found.shape[1] != len(model.classes):
        raise MalformedError(
            f"{model.name}: {found.shape[1]} probabilities for {len(model.classes)} classes"
        )
    if not np.isfinite(found).all():
        raise MalformedError(f"{model.name}: an answer is not finite")
    if model.task != "regression" and not ((found >= 0) & (found <= 1)).all():
        raise MalformedError(f"{model.name}: a probability is not between 0 and 1")
    return found
