"""Remote models over real sockets: the same answers, and what happens when there are none."""

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import duckdb
import numpy as np
import pytest
from aiohttp import web
from registry_fixtures import add_version, logistic, promote, register

from ingest import health, warehouse
from ingest.service_settings import RemoteModel, Services, ServicesError, load
from ingest.services import Service, UnavailableError
from ingest.settings import Settings
from ml import onnx_model, registry
from serving import model_server
from serving.protocol import ProtocolError, decode, encode
from serving.remote import Remote

ROWS = np.array([[1.5, -2.0], [np.nan, 0.25], [1e-3, 7.0]], dtype=np.float32)
QUICK = {"timeout_s": 5.0, "deadline_s": 10.0}


def local(model: registry.Model, matrix: np.ndarray) -> tuple[np.ndarray, str]:
    settings = Settings()
    with warehouse.reading(settings.database) as connection:
        file = registry.model_file(connection, settings.database, model.sha256)
    return onnx_model.probabilities(onnx_model.load(file), matrix), "local"


@contextmanager
def in_background(serving: Any) -> Iterator[Any]:
    """Run an asynchronous context in an event loop of its own thread."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        found = asyncio.run_coroutine_threadsafe(serving.__aenter__(), loop).result()
        yield found
        asyncio.run_coroutine_threadsafe(serving.__aexit__(None, None, None), loop).result()
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@asynccontextmanager
async def answering(handler: Callable[[web.Request], Any]) -> Any:
    """Serve one handler on the loopback interface."""
    app = web.Application()
    app.router.add_post("/{path:.*}", handler)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@pytest.fixture
def champions() -> list[registry.Model]:
    return register(Settings().database, {"ml_a": [0.5, 1.0], "ml_b": [-1.0, 2.0]})


@contextmanager
def asking(url: str, **bounds: Any) -> Iterator[Remote]:
    services = Services(models={"ml_a": RemoteModel(url=url, **(QUICK | bounds))})
    with Remote(services, local, budgets=Settings().budgets_directory) as remote:
        yield remote


@pytest.mark.parametrize("tensors", ["binary", "json"])
def test_a_remote_model_answers_as_the_local_one_does_and_says_who_it_is(
    champions: list[registry.Model], tensors: str
) -> None:
    models = model_server.load(Settings().database, timeout_s=5)
    with ExitStack() as stack:
        url = stack.enter_context(in_background(model_server.serving(models, port=0)))
        remote = stack.enter_context(asking(url, tensors=tensors, rows_per_request=2))
        for model in champions:
            found, answered_by = remote.probabilities(model, ROWS)
            assert found.tolist() == local(model, ROWS)[0].tolist()
            assert answered_by == (
                f"{url.removeprefix('http://')}/ml_a/{model.version}"
                if model.name == "ml_a"
                else "local"
            )
        assert remote.probabilities(champions[0], ROWS[:0])[1] == "local"


def infer_json(*outputs: dict[str, Any], **fields: Any) -> Callable[..., Any]:
    async def handler(request: web.Request) -> web.Response:
        return web.json_response({"outputs": list(outputs), **fields})

    return handler


def output(data: list[float], *, shape: list[int] | None = None) -> dict[str, Any]:
    return {"name": "p", "datatype": "FP32", "shape": shape or [len(data)], "data": data}


def status(number: int, **headers: str) -> Callable[..., Any]:
    async def handler(request: web.Request) -> web.Response:
        return web.json_response({"error": "no"}, status=number, headers=headers)

    return handler


async def slow(request: web.Request) -> web.Response:
    await asyncio.sleep(30)
    return web.Response()


async def torn(request: web.Request) -> web.Response:
    assert request.transport
    request.transport.close()
    return web.Response()


async def no_json(request: web.Request) -> web.Response:
    return web.Response(body=b"<html>")


@pytest.mark.parametrize(
    ("handler", "reason", "requests"),
    [
        (status(503), "status", 3),
        (status(400), "status", 1),
        (status(302, Location="/elsewhere"), "status", 1),
        (slow, "timeout", 3),
        (torn, "connection", 3),
        (no_json, "malformed", 1),
        (infer_json(), "malformed", 1),
        (infer_json(output([0.1, 0.2])), "malformed", 1),
        (infer_json(output([0.1, 0.2, 1.5])), "malformed", 1),
        (infer_json(output([0.1, 0.2, float("nan")])), "malformed", 1),
        (infer_json(output([0.1, 0.2, 0.3], shape=[2])), "malformed", 1),
        (infer_json(output([0.1, 0.2, 0.3]), model_version="other"), "malformed", 1),
    ],
)
def test_without_a_good_answer_the_local_model_answers(
    champions: list[registry.Model], handler: Any, reason: str, requests: int
) -> None:
    fallbacks = health.FALLBACKS.labels("ml_a", reason)._value
    asked = health.REQUESTS.labels("ml_a", reason)._value
    before, asked_before = fallbacks.get(), asked.get()
    with in_background(answering(handler)) as url, asking(url, timeout_s=0.2) as remote:
        found, answered_by = remote.probabilities(champions[0], ROWS)
    assert answered_by == "local"
    assert found.tolist() == local(champions[0], ROWS)[0].tolist()
    assert fallbacks.get() - before == 1
    assert asked.get() - asked_before == requests


def test_nobody_at_the_address_and_no_answer_within_the_deadline_are_fallbacks_too(
    champions: list[registry.Model],
) -> None:
    with asking("http://127.0.0.1:1") as remote:
        assert remote.probabilities(champions[0], ROWS)[1] == "local"
    with in_background(answering(slow)) as url, asking(url, deadline_s=0.2) as remote:
        assert remote.probabilities(champions[0], ROWS)[1] == "local"


def test_no_part_of_a_request_is_left_running_when_the_local_model_answers(
    champions: list[registry.Model],
) -> None:
    ended = []

    async def handler(request: web.Request) -> web.Response:
        size = len(await request.read())
        if not ended:
            ended.append(size)
            raise web.HTTPBadRequest
        await asyncio.sleep(0.2)
        ended.append(size)
        raise web.HTTPBadRequest

    with ExitStack() as stack:
        url = stack.enter_context(in_background(answering(handler)))
        remote = stack.enter_context(asking(url, rows_per_request=1, failures_to_open=10))
        assert remote.probabilities(champions[0], ROWS)[1] == "local"
        assert len(ended) == len(ROWS)


def test_a_request_that_fails_for_the_moment_is_made_again(champions: list[registry.Model]) -> None:
    seen = []

    async def at_last(request: web.Request) -> web.Response:
        seen.append(request.path)
        if len(seen) == 1:
            return web.Response(status=429, headers={"Retry-After": "0"})
        if len(seen) == 2:
            return await torn(request)
        return web.json_response({"outputs": [output([0.5, 0.25, 0.75])]})

    with in_background(answering(at_last)) as url, asking(url) as remote:
        found, answered_by = remote.probabilities(champions[0], ROWS)
    assert found.tolist() == [0.5, 0.25, 0.75]
    assert answered_by.endswith(f"/ml_a/{champions[0].version}")
    assert seen == [f"/v2/models/ml_a/versions/{champions[0].version}/infer"] * 3


def test_the_breaker_opens_after_failures_sends_nothing_and_closes_after_a_good_answer(
    champions: list[registry.Model],
) -> None:
    count = 0
    is_well = False

    async def handler(request: web.Request) -> web.Response:
        nonlocal count
        count += 1
        if not is_well:
            return web.Response(status=500)
        return web.json_response({"outputs": [output([0.5] * 3)]})

    gauge = health.BREAKER.labels("ml_a")._value
    bounds = {"attempts": 1, "failures_to_open": 2, "open_s": 3}
    with in_background(answering(handler)) as url, asking(url, **bounds) as remote:
        for _ in range(6):
            assert remote.probabilities(champions[0], ROWS)[1] == "local"
        assert (count, gauge.get()) == (2, 2)
        threading.Event().wait(3.05)
        assert remote.probabilities(champions[0], ROWS)[1] == "local"
        assert (count, gauge.get()) == (3, 2)
        is_well = True
        assert remote.probabilities(champions[0], ROWS)[1] == "local"
        threading.Event().wait(3.05)
        assert remote.probabilities(champions[0], ROWS)[0].tolist() == [0.5] * 3
        assert (count, gauge.get()) == (4, 0)


@pytest.mark.parametrize(
    "bounds",
    [{"requests_per_day": 3}, {"cost_per_request": 0.1, "cost_per_day": 0.3}],
)
async def test_a_spent_budget_sends_nothing_until_the_next_day_and_survives_a_restart(
    tmp_path: Path, bounds: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    count = 0
    now = datetime(2024, 5, 1, 23, 59, tzinfo=UTC)

    async def handler(request: web.Request) -> web.Response:
        nonlocal count
        count += 1
        return web.Response(status=500 if count == 2 else 200)

    async def ask(service: Service) -> bytes:
        return await service.post(session, "/", b"", {}, lambda body, _: body)

    def restarted() -> Service:
        endpoint = RemoteModel(url=url, attempts=2, **(QUICK | bounds))
        return Service("paid", endpoint, tmp_path, clock=lambda: now)

    async with answering(handler) as url, aiohttp.ClientSession() as session:
        service = restarted()
        await ask(service)
        await ask(service)  # Two requests: a failed one costs, too.
        for each in (service, service, restarted()):
            with pytest.raises(UnavailableError, match="the budget of 2024-05-01 is spent"):
                await ask(each)
        assert count == 3
        assert capsys.readouterr().err.count("budget spent") == 2
        now += timedelta(minutes=1)
        await ask(service)
        assert count == 4
    assert json.loads((tmp_path / "paid.json").read_text()) == {"day": "2024-05-02", "requests": 1}


async def test_a_token_comes_from_the_environment_and_is_never_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DEMO_GPU", "s3cr3t-canary")
    seen = []

    async def handler(request: web.Request) -> web.Response:
        seen.append(request.headers["Authorization"])
        return web.Response(status=401, text=f"bad {request.headers['Authorization'][7:]}")

    async with answering(handler) as url, aiohttp.ClientSession() as session:
        endpoint = RemoteModel(url=url, token_variable="DEMO_GPU", failures_to_open=1)
        with pytest.raises(UnavailableError) as raised:
            await Service("gpu", endpoint, tmp_path).post(session, "/", b"", {}, lambda b, _: b)
    assert seen == ["Bearer s3cr3t-canary"]
    assert "s3cr3t" not in str(raised.value) + repr(endpoint) + capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[models.ml_a]\nurl = 'gpu:8000'", "models.ml_a.url: expected an address such as"),
        ("[models.ml_a]\n", "models.ml_a.url: Field required"),
        ("[models.ml_a]\nurl = 'http://a:b@h'", "expected no credentials in it"),
        ("[models.ml_a]\nurl = 'http://h'\ntimeout = 3", "models.ml_a.timeout: Extra inputs"),
        ("[models.ml_a]\nurl = 'http://h'\ntimeout_s = 0", "models.ml_a.timeout_s: Input should"),
        ("[models.ml_a]\nurl = 'http://h'\ncost_per_day = 1", "needs cost_per_request"),
        ("[models.ml_a]\nurl = 'http://h'\ntoken_variable = 'NO_SUCH'", "NO_SUCH is not set"),
        ("[models.'../x']\nurl = 'http://h'", "String should match pattern"),
        ("[sentiment]\nurl = 'http://h'\nscorer = 'vader'", "vader is the name of the local"),
        ("[model]", "model: Extra inputs are not permitted"),
        ("[models", "is no TOML"),
    ],
)
def test_a_wrong_file_of_services_says_where(text: str, message: str) -> None:
    settings = Settings()
    settings.remote_file.write_text(text)
    with pytest.raises(ServicesError) as raised:
        load(settings)
    assert message in str(raised.value)
    assert str(settings.remote_file) in str(raised.value)
    assert "a:b" not in str(raised.value)


def test_a_file_of_services_is_optional_unless_named_and_names_models_that_exist(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert load(Settings()) == Services()
    monkeypatch.setenv("TAPEHOUSE_REMOTE", "/nowhere.toml")
    with pytest.raises(ServicesError, match=r"/nowhere\.toml, which does not exist"):
        load(Settings())
    services = Services(models={"ml_a": RemoteModel(url="http://h")})
    services.require(["ml_a", "ml_b"])
    with pytest.raises(ServicesError, match="name ml_a; active models are ml_b"):
        services.require(["ml_b"])


async def test_a_promotion_is_served_without_a_restart_and_the_version_before_it_for_a_while(
    champions: list[registry.Model],
) -> None:
    database = Settings().database
    looks: asyncio.Queue[None] = asyncio.Queue()
    running = asyncio.get_running_loop()

    def renew(known: model_server.Models) -> model_server.Models:
        try:
            return model_server.load(database, timeout_s=0, known=known)
        finally:
            running.call_soon_threadsafe(looks.put_nowait, None)

    def add(weights: list[float], stage: str) -> str:
        onnx = logistic(weights)
        with warehouse.writing(database) as connection:
            version = add_version(
                connection, "ml_a", onnx, features=champions[0].features, stage="shadow"
            )
            if stage == "champion":
                promote(connection, "ml_a", version)
        return version

    async with (
        model_server.serving(
            model_server.load(database, timeout_s=5), port=0, renew=renew, every_s=0.05
        ) as url,
        aiohttp.ClientSession(f"{url}/v2/models/") as session,
    ):

        async def versions() -> list[str]:
            while not looks.empty():
                looks.get_nowait()
            await looks.get()
            await looks.get()
            async with session.get("ml_a") as answer:
                found: list[str] = (await answer.json())["versions"]
                return found

        first = champions[0].version
        assert await versions() == [first]
        second = await asyncio.to_thread(add, [1.0, 1.0], "champion")
        assert await versions() == [second, first]
        shadow = await asyncio.to_thread(add, [3.0, 1.0], "shadow")
        third = await asyncio.to_thread(add, [2.0, 1.0], "champion")
        assert await versions() == [third, shadow, second]
        body = encode({}, "inputs", {"features": ROWS}, binary=False)[0]
        async with session.post("ml_a/infer", data=body) as answer:
            assert (await answer.json())["model_version"] == third
        held = await asyncio.to_thread(duckdb.connect, database, config={"threads": 1})
        assert await versions() == [third, shadow, second]
        held.close()


async def test_the_server_speaks_the_protocol(champions: list[registry.Model]) -> None:
    a, b = champions
    models = model_server.load(Settings().database, timeout_s=5)
    async with (
        model_server.serving(models, port=0) as url,
        aiohttp.ClientSession(f"{url}/v2/") as session,
    ):

        async def get(path: str) -> tuple[int, Any]:
            async with session.get(path) as answer:
                return answer.status, await answer.json()

        async def post(path: str, body: Any, **headers: str) -> tuple[int, Any]:
            data = body if isinstance(body, bytes) else json.dumps(body)
            async with session.post(path, data=data, headers=headers) as answer:
                return answer.status, await answer.json()

        assert await get("health/live") == (200, {"live": True})
        assert await get("health/ready") == (200, {"ready": True})
        assert await get("models/ml_a/ready") == (200, {"name": "ml_a", "ready": True})
        described = {
            "name": "ml_a",
            "versions": [a.version],
            "platform": "onnxruntime_onnx",
            "inputs": [{"name": "features", "datatype": "FP32", "shape": [-1, 2]}],
            "outputs": [{"name": "probabilities", "datatype": "FP64", "shape": [-1, 2]}],
        }
        assert await get("models/ml_a") == (200, described)
        assert await get(f"models/ml_a/versions/{a.version}") == (200, described)
        for path in ("models/ml_c", "models/ml_a/versions/1", "models/ml_c/ready", "nowhere"):
            number, answer = await get(path)
            assert (number, list(answer)) == (404, ["error"])

        tensor = {"name": "features", "datatype": "FP32", "shape": [2, 2], "data": [1, None, 2, 3]}
        number, answer = await post("models/ml_b/infer", {"id": "x", "inputs": [tensor]})
        told = onnx_model.outputs(
            models["ml_b"][b.version].session, np.array([[1, np.nan], [2, 3]], dtype=np.float32)
        )
        assert number == 200
        assert answer == {
            "id": "x",
            "model_name": "ml_b",
            "model_version": b.version,
            "outputs": [
                {
                    "name": "probabilities",
                    "datatype": "FP64",
                    "shape": [2, 2],
                    "data": told.reshape(-1).tolist(),
                }
            ],
        }
        nested = tensor | {"data": [[1, None], [2, 3]]}
        assert (await post("models/ml_b/infer", {"inputs": [nested]}))[1]["outputs"] == (
            answer["outputs"]
        )
        for wrong, message in (
            ({"inputs": [tensor | {"shape": [1, 4]}]}, "expected float32 of shape [n, 2]"),
            ({"inputs": [tensor | {"shape": [3, 2]}]}, "features: cannot reshape"),
            ({"inputs": [tensor | {"datatype": "FP64"}]}, "float64"),
            ({"inputs": [tensor | {"datatype": "BYTES"}]}, "datatype is 'BYTES'"),
            ({"inputs": [tensor | {"data": ["a"] * 4}]}, "could not convert"),
            ({"inputs": [tensor | {"name": "x"}]}, "expected one named features"),
            ({"inputs": []}, "expected one named features"),
            ({}, "no list of inputs"),
            (b"\xff", "no JSON"),
        ):
            number, answer = await post("models/ml_a/infer", wrong)
            assert number == 400, wrong
            assert message in answer["error"]
        number, answer = await post(
            "models/ml_a/infer", b"{}", **{"Inference-Header-Content-Length": "99"}
        )
        assert (number, list(answer)) == (400, ["error"])


@pytest.mark.parametrize("binary", [True, False])
def test_tensors_survive_the_way_to_the_last_bit(binary: bool) -> None:
    tensors = {
        "a": np.array([[np.nan, -0.0, 1e-45], [np.inf, 0.1, 3e38]], dtype=np.float32),
        "b": np.array([0.1 + 0.2, np.nextafter(1.0, 2.0)]),
        "c": np.array([[2**62 + 1]], dtype=np.int64),
    }
    body, headers = encode({"id": "1"}, "inputs", tensors, binary=binary)
    fields, found = decode(body, headers, "inputs")
    assert fields["id"] == "1"
    assert [(k, v.dtype, v.shape, v.tobytes()) for k, v in found.items()] == [
        (k, v.dtype, v.shape, v.tobytes()) for k, v in tensors.items()
    ]
    with pytest.raises(ProtocolError):
        decode(body[:-9], headers, "inputs")
