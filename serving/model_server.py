"""The registry's models over the Open Inference Protocol."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version as installed
from pathlib import Path
from types import MappingProxyType
from typing import Any

import duckdb
import numpy as np
import onnxruntime
from aiohttp import web

from ingest import health, logs, warehouse
from ml import onnx_model, registry
from serving.protocol import ProtocolError, decode, encode

HOST = "127.0.0.1"
PORT = 8323
LARGEST_BODY = 256 * 1024 * 1024
EXTENSIONS = ["binary_tensor_data"]
_PLATFORM = "onnxruntime_onnx"
_TYPES = {"tensor(float)": "FP32", "tensor(double)": "FP64", "tensor(int64)": "INT64"}


#: How often the registry is looked at.
EVERY_S = 10.0
_log = logs.logger("models")


@dataclass(frozen=True)
class Hosted:
    """A version of a model, loaded; not `is_active` if others have taken its place since."""

    name: str
    version: str
    session: onnxruntime.InferenceSession
    is_active: bool = True


#: By name and version, the champion first.
Models = Mapping[str, Mapping[str, Hosted]]


def load(
    database: Path,
    *,
    timeout_s: float,
    providers: Sequence[str] = (),
    known: Models = MappingProxyType({}),
) -> Models:
    """Load the champion and the shadows of every model.

    Parameters
    ----------
    database : Path
        The warehouse, or a copy of it on the machine that hosts the models.
    timeout_s : float
        Seconds to wait for another process to release the file.
    providers : sequence of str
        ONNX Runtime's, the preferred first; the processor's by default.
    known : Mapping
        What was loaded before. Versions that a promotion has replaced stay until the next one,
        as clients ask for the version they know.

    Returns
    -------
    Mapping
        Models by version by name; the champion of a name comes first.

    Raises
    ------
    ModelMissingError
        If there is none.
    """
    with warehouse.reading(database, timeout_s=timeout_s) as connection:
        active = registry.active_models(connection, role=None)
        active += registry.shadow_models(connection)
        files = [registry.model_file(connection, database, each.sha256) for each in active]
    if not active:
        raise registry.ModelMissingError(f"{database} has no active model: run `dbt build` first")
    found: dict[str, dict[str, Hosted]] = {}
    for model, file in zip(active, files, strict=True):
        before = known.get(model.name, {}).get(model.version)
        session = before.session if before else onnx_model.load(file, providers=providers)
        found.setdefault(model.name, {})[model.version] = Hosted(model.name, model.version, session)
    for name, versions in found.items():
        before_it = known.get(name, {})
        is_same = {each.version for each in before_it.values() if each.is_active} == versions.keys()
        for version, hosted in before_it.items():
            if version not in versions and (hosted.is_active or is_same):
                versions[version] = replace(hosted, is_active=False)
    return found


@asynccontextmanager
async def serving(
    models: Models,
    *,
    port: int = PORT,
    renew: Callable[[Models], Models] | None = None,
    every_s: float = EVERY_S,
) -> AsyncIterator[str]:
    """Serve models on the loopback interface within the running event loop.

    Parameters
    ----------
    models : Mapping
        From `load`.
    port : int
        0 takes a free one.
    renew : callable, optional
        Called now and then, on a thread, with the models; what it returns is served from then on.
        While the warehouse is held, and where it has no model, the models stay.
    every_s : float
        Seconds between two calls.

    Yields
    ------
    str
        Base address.

    Raises
    ------
    OSError
        If the port is taken.
    """
    served = dict(models)
    runner = web.AppRunner(_application(served), access_log=None, shutdown_timeout=5.0)
    await runner.setup()
    renewing = asyncio.create_task(_renewing(served, renew, every_s)) if renew else None
    try:
        await web.TCPSite(runner, HOST, port).start()
        yield f"http://{HOST}:{runner.addresses[0][1]}"
    finally:
        if renewing:
            renewing.cancel()
            await asyncio.gather(renewing, return_exceptions=True)
        await runner.cleanup()


async def _renewing(
    served: dict[str, Mapping[str, Hosted]], renew: Callable[[Models], Models], every_s: float
) -> None:
    while True:
        await asyncio.sleep(every_s)
        try:
            found = await asyncio.to_thread(renew, dict(served))
        except (
            *(warehouse.WarehouseBusyError, warehouse.WarehouseMissingError),
            *(registry.ModelMissingError, duckdb.Error),
        ) as error:
            _log.warning("models stay", error=str(error))
            continue
        if found != served:
            served.clear()
            served.update(found)
            _log.info("models", served=[version for each in found.values() for version in each])


def _application(models: Models) -> web.Application:
    routes = web.RouteTableDef()

    @routes.get("/v2/health/live")
    async def live(_: web.Request) -> web.Response:
        return web.json_response({"live": True})

    @routes.get("/v2/health/ready")
    async def ready(_: web.Request) -> web.Response:
        return web.json_response({"ready": True})

    @routes.get("/v2")
    async def server(_: web.Request) -> web.Response:
        return web.json_response(
            {"name": "tapehouse", "version": installed("tapehouse"), "extensions": EXTENSIONS}
        )

    for path in ("/v2/models/{name}", "/v2/models/{name}/versions/{version}"):

        @routes.get(path)
        async def metadata(request: web.Request) -> web.Response:
            return web.json_response(_metadata(_find(models, request), models))

        @routes.get(f"{path}/ready")
        async def model_ready(request: web.Request) -> web.Response:
            return web.json_response({"name": _find(models, request).name, "ready": True})

        @routes.post(f"{path}/infer")
        async def infer(request: web.Request) -> web.Response:
            return await _infer(_find(models, request), request)

    app = web.Application(middlewares=[_errors_as_json], client_max_size=LARGEST_BODY)
    app.add_routes(routes)
    return app


@web.middleware
async def _errors_as_json(request: web.Request, handler: Any) -> web.StreamResponse:
    try:
        response: web.StreamResponse = await handler(request)
    except ProtocolError as error:
        return web.json_response({"error": str(error)}, status=400)
    except web.HTTPException as error:
        return web.json_response({"error": error.text or error.reason}, status=error.status)
    return response


def _find(models: Models, request: web.Request) -> Hosted:
    name, version = request.match_info["name"], request.match_info.get("version")
    versions = models.get(name, {})
    found = next(iter(versions.values()), None) if version is None else versions.get(version)
    if found is None:
        known = ", ".join(f"{each} {' '.join(models[each])}" for each in sorted(models))
        raise web.HTTPNotFound(text=f"no model {name} {version or ''}: there are {known}")
    return found


def _metadata(model: Hosted, models: Models) -> dict[str, Any]:
    def described(nodes: Sequence[Any]) -> list[dict[str, Any]]:
        return [
            {
                "name": node.name,
                "datatype": _TYPES.get(node.type, "BYTES"),
                "shape": [size if isinstance(size, int) else -1 for size in node.shape],
            }
            for node in nodes
        ]

    return {
        "name": model.name,
        "versions": list(models[model.name]),
        "platform": _PLATFORM,
        "inputs": described(model.session.get_inputs()),
        "outputs": described(model.session.get_outputs()),
    }


async def _infer(model: Hosted, request: web.Request) -> web.Response:
    fields, tensors = decode(await request.read(), request.headers, "inputs")
    matrix = tensors.get(onnx_model.INPUT)
    columns = model.session.get_inputs()[0].shape[1]
    if matrix is None or list(tensors) != [onnx_model.INPUT]:
        raise ProtocolError(f"inputs are {list(tensors)}, expected one named {onnx_model.INPUT}")
    if matrix.dtype != np.float32 or matrix.ndim != 2 or matrix.shape[1] != columns:
        raise ProtocolError(
            f"{onnx_model.INPUT} is {matrix.dtype} of shape {list(matrix.shape)}, "
            f"expected float32 of shape [n, {columns}]"
        )
    with health.REQUEST_SECONDS.labels(model.name).time():
        found = await asyncio.to_thread(onnx_model.outputs, model.session, matrix)
    answer = {"model_name": model.name, "model_version": model.version}
    if "id" in fields:
        answer["id"] = fields["id"]
    body, headers = encode(answer, "outputs", {_output(model): found}, binary=_wants_bytes(fields))
    health.REQUESTS.labels(model.name, "ok").inc()
    return web.Response(body=body, headers=headers)


def _output(model: Hosted) -> str:
    return next(str(node.name) for node in model.session.get_outputs() if node.name != "label")


def _wants_bytes(fields: Mapping[str, Any]) -> bool:
    if (fields.get("parameters") or {}).get("binary_data_output"):
        return True
    outputs = fields.get("outputs") or []
    return any((output.get("parameters") or {}).get("binary_data") for output in outputs)
