"""The exchange on the loopback interface."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import partial

from aiohttp import web

from ingest.simulator import archives, faults, rest, streams
from ingest.simulator.clock import Clock
from ingest.simulator.exchange import EXCHANGE, Exchange
from ingest.simulator.faults import Faults
from ingest.simulator.source import Source, instant

HOST = "127.0.0.1"


@dataclass(frozen=True)
class Simulator:
    """A running exchange: its base address and the two things a test may turn."""

    url: str
    clock: Clock
    faults: Faults


def application(exchange: Exchange) -> web.Application:
    """Return the aiohttp application of an exchange."""
    app = web.Application(middlewares=[faults.middleware(exchange.faults)])
    app[EXCHANGE] = exchange
    app.add_routes(rest.routes())
    app.add_routes(archives.routes(exchange.source))
    app.add_routes(streams.routes())
    app.add_routes(_control())
    app.on_shutdown.append(streams.close_all)
    return app


def _control() -> web.RouteTableDef:
    table = web.RouteTableDef()

    @table.get("/simulator/status")
    async def status(request: web.Request) -> web.Response:
        clock = request.app[EXCHANGE].clock
        return web.json_response({"now": instant(clock.now()).isoformat(), "speed": clock.speed})

    @table.post("/simulator/faults")
    async def change_faults(request: web.Request) -> web.Response:
        try:
            request.app[EXCHANGE].faults.replace(await request.json())
        except (TypeError, ValueError) as error:
            return web.json_response({"error": str(error)}, status=400)
        return web.json_response({})

    return table


@asynccontextmanager
async def serving(
    source: Source,
    *,
    speed: float = 0.0,
    now: datetime | None = None,
    port: int = 0,
    faults: Faults | None = None,
) -> AsyncIterator[Simulator]:
    """Serve a market inside the running event loop; the arguments are those of ``simulator``."""
    clock = Clock(now or source.end, speed)
    exchange = Exchange(source, clock, faults or Faults())
    runner = web.AppRunner(application(exchange), shutdown_timeout=1.0)
    await runner.setup()
    try:
        await web.TCPSite(runner, HOST, port).start()
        bound_port = runner.addresses[0][1]
        yield Simulator(f"http://{HOST}:{bound_port}", clock, exchange.faults)
    finally:
        await runner.cleanup()


@contextmanager
def simulator(
    source: Source,
    *,
    speed: float = 0.0,
    now: datetime | None = None,
    port: int = 0,
    faults: Faults | None = None,
) -> Iterator[Simulator]:
    """Serve a market from a thread of its own, so that synchronous code can talk to it.

    Parameters
    ----------
    source : Source
        A ``Market`` or a ``Replay``.
    speed : float
        Simulated seconds per second: 0 = frozen, ``math.inf`` = as fast as streams are read.
    now : datetime, optional
        Where the simulated clock starts; the end of the source's history by default.
    port : int
        0 takes any free port.
    faults : Faults, optional
        Trouble to begin with.

    Yields
    ------
    Simulator
        ``url`` is the base address for ``TAPEHOUSE_EXCHANGE_URL``.

    Raises
    ------
    OSError
        If the port is taken.
    """
    started: Future[tuple[Simulator, Callable[[], object]]] = Future()

    async def serve() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        async with serving(source, speed=speed, now=now, port=port, faults=faults) as running:
            started.set_result((running, partial(loop.call_soon_threadsafe, stop.set)))
            await stop.wait()

    def work() -> None:
        try:
            asyncio.run(serve())
        except (OSError, ValueError) as error:
            started.set_exception(error)

    thread = threading.Thread(target=work, name="exchange simulator", daemon=True)
    thread.start()
    running, stop = started.result()
    try:
        yield running
    finally:
        stop()
        thread.join()


def run(
    source: Source,
    *,
    speed: float,
    now: datetime | None,
    port: int,
    announce: Callable[[Simulator], None],
) -> None:
    """Serve a market until the process is interrupted or terminated.

    ``announce`` is called once the port is open; the other arguments are those of ``simulator``.
    """

    async def serve() -> None:
        stop = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        async with serving(source, speed=speed, now=now, port=port) as running:
            announce(running)
            await stop.wait()

    asyncio.run(serve())
