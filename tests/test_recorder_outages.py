"""The recorder while nothing is heard, or nothing can be landed."""

import asyncio
import contextlib
import itertools
import json
import os
import signal
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Handler
from prometheus_client import generate_latest
from recorder_fixtures import frames_of, query

from ingest import health, warehouse
from ingest.connections import follow
from ingest.live_books import known_until
from ingest.recorder import record
from ingest.settings import Settings
from ingest.simulator import Market, Simulator, simulator

START = datetime(2024, 12, 30, tzinfo=UTC)
MARKET = Market(7, ["BTCUSDT"], start=START, days=2, edge=1.0)
NOW = START + timedelta(days=1)


def settings_of(directory: Path, exchange: Simulator) -> Settings:
    return Settings(
        database=directory / "tapehouse.duckdb", exchange_url=exchange.url, symbols=["BTCUSDT"]
    )


def stop_at(count: int) -> Callable[[int], None]:
    """Return what ends a recording after so many messages."""

    def stop(messages: int) -> None:
        if messages == count:
            os.kill(os.getpid(), signal.SIGINT)

    return stop


def test_a_lost_connection_ends_what_is_known_of_its_books(tmp_path: Path) -> None:
    with simulator(MARKET, speed=60.0, now=NOW) as exchange:
        exchange.faults.replace({"disconnect_after": 200})
        settings = settings_of(tmp_path, exchange)
        record(
            settings, seconds=60, market="spot", clock=exchange.clock.now, on_message=stop_at(1500)
        )
    (lost, at) = query(
        settings,
        "select count(*), count(distinct gap_from) from raw.book_gaps "
        "where cause = 'connection' and gap_until is null and gap_from in "
        "(select event_time from raw.books union all select gap_until from raw.book_gaps)",
    )[0]
    assert lost == at >= 1


def test_a_recording_that_begins_knows_books_until_their_last_change(tmp_path: Path) -> None:
    with simulator(MARKET, speed=60.0, now=NOW) as exchange:
        settings = settings_of(tmp_path, exchange)
        log = settings.segments_directory / "um"
        record(
            settings,
            seconds=60,
            clock=exchange.clock.now,
            is_landed=False,
            on_message=stop_at(300),
        )
        changes = [frame for frame in frames_of(log) if frame.stream == "btcusdt@depth@500ms"]
        nowhere = settings.model_copy(update={"exchange_url": "http://127.0.0.1:9"})
        record(nowhere, seconds=1, clock=exchange.clock.now, is_landed=False)
        record(settings, seconds=1, clock=exchange.clock.now, is_landed=False)
    heard = frames_of(log)
    said = [json.loads(frame.payload) for frame in heard if frame.stream == "!recorder"]
    first, deaf, last = [
        event["gap_from"]
        for event in said
        if event["event"] == "gap" and event["cause"] == "start" and event["gap_until"] is None
    ]
    assert first < deaf == last == known_until(changes)["BTCUSDT"]


def test_silence_of_the_exchange_is_not_hidden_by_what_the_recorder_says(tmp_path: Path) -> None:
    def last_frame() -> float:
        return health.samples(generate_latest(health.REGISTRY).decode())[
            "tapehouse_last_frame_timestamp_seconds"
        ]

    health.LAST_FRAME.set(0)
    with simulator(MARKET, speed=60.0, now=NOW) as exchange:
        settings = settings_of(tmp_path, exchange)
        deaf = settings.model_copy(update={"exchange_url": "http://127.0.0.1:9"})
        record(deaf, seconds=1.2, is_landed=False)
        assert frames_of(settings.segments_directory / "um")
        assert last_frame() == 0
        record(
            settings, seconds=60, clock=exchange.clock.now, is_landed=False, on_message=stop_at(9)
        )
        assert time.time() - last_frame() < 10


async def followed(answer: Handler, seconds: float, **settings: Any) -> list[int]:
    """Follow a server that answers so; return the connections of the messages heard."""
    heard: list[int] = []
    application = web.Application()
    application.router.add_get("/stream", answer)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    task = asyncio.create_task(
        follow(
            "um",
            f"ws://127.0.0.1:{runner.addresses[0][1]}/stream",
            on_text=lambda _, connection: heard.append(connection),
            on_event=lambda *_: None,
            numbers=itertools.count(),
            **settings,
        )
    )
    await asyncio.sleep(seconds)
    task.cancel()
    await asyncio.wait([task])
    await runner.cleanup()
    return heard


def test_connections_that_do_not_last_are_taken_up_ever_more_slowly() -> None:
    async def say_once(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await socket.send_str("{}")
        await socket.close()
        return socket

    assert 2 <= len(asyncio.run(followed(say_once, 3.0))) <= 8


def test_an_old_connection_is_heard_while_there_is_no_other() -> None:
    requests = itertools.count()

    async def say_on(request: web.Request) -> web.StreamResponse:
        if next(requests):
            return web.Response(status=503)
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        while not socket.closed:
            await socket.send_str("{}")
            with contextlib.suppress(TimeoutError):
                await socket.receive(0.05)
        return socket

    heard = asyncio.run(followed(say_on, 2.0, renew_s=0.2, overlap_s=0.1))
    assert next(requests) >= 2
    assert len(heard) > 20


def test_one_process_lands_at_a_time(tmp_path: Path) -> None:
    most = 0

    def count(messages: int) -> None:
        nonlocal most
        if messages % 50 == 0:
            children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
            lines = [Path(f"/proc/{child}/cmdline").read_bytes() for child in children]
            most = max(most, sum(b"ingest.drain" in line for line in lines))

    with simulator(MARKET, speed=60.0, now=NOW) as exchange:
        settings = settings_of(tmp_path, exchange)
        with warehouse.writing(settings.database):
            record(
                settings,
                seconds=4,
                clock=exchange.clock.now,
                on_message=count,
                land_s=0.5,
                is_landed=False,
            )
    assert most == 1
