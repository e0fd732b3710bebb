"""WebSocket connections: raw and combined streams, subscriptions, simulated-time order."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from aiohttp import WSCloseCode, WSMsgType, web

from ingest.simulator.disorder import Disorder, Named
from ingest.simulator.exchange import EXCHANGE, Exchange
from ingest.simulator.messages import Stream, messages, parse
from ingest.simulator.source import SECOND

# Simulated time sent at once: the most when behind, and the step of a clock that follows readers.
_CATCH_UP = 30 * SECOND
_STEP = SECOND
_PAUSE = 0.02
_RAW = {
    "spot": ("/spot/ws", "/stream/spot/ws"),
    "um": ("/um/ws", "/um/public/ws", "/um/market/ws", "/um/private/ws"),
}
_COMBINED = {
    "spot": ("/spot/stream",),
    "um": ("/um/stream", "/um/public/stream", "/um/market/stream"),
}


@dataclass
class _Connection:
    """One client: what it reads, and since when."""

    exchange: Exchange
    kind: str
    disorder: Disorder
    socket: web.WebSocketResponse
    streams: dict[Stream, int] = field(default_factory=dict)
    sent: int = 0

    def subscribe(self, names: list[str]) -> str | None:
        """Add streams from now on; return the first name that is none."""
        found = {name: parse(self.exchange.source, self.kind, name) for name in names}
        for name, stream in found.items():
            if stream is None:
                return name
            self.streams.setdefault(stream, self.exchange.clock.now())
        return None

    def answer(self, text: str) -> dict[str, Any]:
        """Obey a request of the client."""
        try:
            request = json.loads(text)
            method, names = request["method"], request.get("params") or []
        except (ValueError, KeyError, TypeError) as error:
            return {"error": {"code": 3, "msg": f"Invalid JSON: {error}"}}
        identifier = request.get("id")
        if method == "LIST_SUBSCRIPTIONS":
            return {"result": [stream.name for stream in self.streams], "id": identifier}
        if method == "SUBSCRIBE":
            unknown = self.subscribe(names)
            if unknown is not None:
                message = f"Invalid request: no stream {unknown!r}"
                return {"error": {"code": 2, "msg": message}, "id": identifier}
        elif method == "UNSUBSCRIBE":
            self.streams = {
                stream: since for stream, since in self.streams.items() if stream.name not in names
            }
        else:
            message = f"Invalid request: unknown method {method!r}"
            return {"error": {"code": 2, "msg": message}, "id": identifier}
        return {"result": None, "id": identifier}

    async def send(self) -> None:
        """Send what happens, for ever."""
        clock = self.exchange.clock
        cursor = clock.now()
        while True:
            end = clock.now()
            if clock.follows_readers and self.streams:
                end = cursor + _STEP
                clock.reach(end)
            end = min(end, cursor + _CATCH_UP)
            for text in self.disorder.carried(self._due(cursor, end), end):
                await self._send_one(text)
            cursor = end
            is_pulled = clock.follows_readers and bool(self.streams)
            is_behind = is_pulled or clock.now() > end + _CATCH_UP
            await asyncio.sleep(0.0 if is_behind else _PAUSE)

    def _due(self, start: int, end: int) -> list[Named]:
        due = [
            (time, stream.name, payload)
            for stream, since in self.streams.items()
            if since < end
            for time, payload in messages(self.exchange.source, stream, max(start, since), end)
        ]
        due.sort(key=lambda named: named[0])
        return due

    async def _send_one(self, text: str) -> None:
        faults = self.exchange.faults
        if 0 < faults.silent_after <= self.sent:
            return
        await self.socket.send_str(text)
        self.sent += 1
        if 0 < faults.disconnect_after <= self.sent:
            raise ConnectionAbortedError


def _handler(kind: str, *, is_combined: bool) -> Callable[[web.Request], Awaitable[Any]]:
    async def handle(request: web.Request) -> web.WebSocketResponse:
        exchange = request.app[EXCHANGE]
        asked = (
            request.query.get("streams", "")
            if is_combined
            else request.match_info.get("streams", "")
        )
        socket = web.WebSocketResponse(timeout=0.5)
        disorder = Disorder(exchange.faults, next(exchange.numbers), is_combined=is_combined)
        connection = _Connection(exchange, kind, disorder, socket)
        # A name without @ is a connection's number, which ccxt appends to the address.
        unknown = connection.subscribe([name for name in asked.split("/") if "@" in name])
        if unknown is not None:
            raise web.HTTPBadRequest(text=f"no stream {unknown!r}")
        await socket.prepare(request)
        exchange.connections.add(socket)
        sender = asyncio.create_task(connection.send())
        reader = asyncio.create_task(_read(connection))
        done, pending = await asyncio.wait({sender, reader}, return_when=asyncio.FIRST_COMPLETED)
        for task in pending:
            task.cancel()
        with contextlib.suppress(ConnectionError, asyncio.CancelledError):
            await asyncio.gather(*done, *pending)
        if sender in done and request.transport is not None:
            request.transport.abort()
        return socket

    return handle


async def _read(connection: _Connection) -> None:
    async for message in connection.socket:
        if message.type is WSMsgType.TEXT:
            await connection.socket.send_json(connection.answer(message.data))


async def close_all(app: web.Application) -> None:
    """Say goodbye to every client."""
    for socket in set(app[EXCHANGE].connections):
        await socket.close(code=WSCloseCode.GOING_AWAY, message=b"the simulator stops")


def routes() -> list[web.RouteDef]:
    """Serve raw streams under ``…/ws`` and combined ones under ``…/stream?streams=``."""
    served = []
    for kind, paths in _RAW.items():
        raw = _handler(kind, is_combined=False)
        for path in paths:
            served += [web.get(path, raw), web.get(f"{path}/{{streams:.*}}", raw)]
    for kind, paths in _COMBINED.items():
        combined = _handler(kind, is_combined=True)
        served += [web.get(path, combined) for path in paths]
    return served
