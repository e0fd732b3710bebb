"""The recorder while nothing is heard, or nothing can be landed."""

import asyncio
import itertools
import json
import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from aiohttp import web
from prometheus_client import generate_latest

from ingest import health, warehouse
from ingest.connections import follow
from ingest.live_books import known_until
from ingest.recorder import record
from ingest.segments import Frame, SegmentReader
from ingest.settings import Settings
from ingest.simulator import Market, Simulator, simulator

START = datetime(2024, 12, 30, tzinfo=UTC)
MARKET = Market(7, ["BTCUSDT"], start=START, days=2, edge=1.0)
NOW = START + timedelta(days=1)


def settings_of(directory: Path, exchange: Simulator) -> Settings:
    return Settings(
        database=directory / "tapehouse.duckdb", exchange_url=exchange.url, symbols=["BTCUSDT"]
    )


def query(settings: Settings, sql: str) -> list[tuple[Any, ...]]:
    with warehouse.reading(settings.database) as connection:
        return connection.execute(sql).fetchall()


def frames_of(directory: Path) -> list[Frame]:
    with SegmentReader(directory) as reader:
        return [frame for part in iter(reader.read, []) for frame in part]


def test_a_lost_connection_ends_what_is_known_of_its_books(tmp_path: Path) -> None:
    with simulator(MARKET, speed=60.0, now=NOW) as exchange:
        exchange.faults.replace({"disconnect_after": 60})
        settings = settings_of(tmp_path, exchange)
        record(settings, seconds=3, market="spot", clock=exchange.clock.now)
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
        record(settings, seconds=2, clock=exchange.clock.now, is_landed=False)
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
        record(settings, seconds=1, clock=exchange.clock.now, is_landed=False)
        assert time.time() - last_frame() < 10


def test_connections_that_do_not_last_are_taken_up_ever_more_slowly() -> None:
    count = 0

    async def listen() -> None:
        async def say_once(request: web.Request) -> web.WebSocketResponse:
            nonlocal count
            count += 1
            socket = web.WebSocketResponse()
            await socket.prepare(request)
            await socket.send_str('{"stream":"x@kline_1m","data":{}}')
            await socket.close()
            return socket

        application = web.Application()
        application.router.add_get("/stream", say_once)
        runner = web.AppRunner(application)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        address = f"ws://127.0.0.1:{runner.addresses[0][1]}/stream"
        numbers = itertools.count()
        task = asyncio.create_task(
            follow(
                "um",
                address,
                on_text=lambda *_: None,
                on_event=lambda *_: None,
                numbers=numbers,
            )
        )
        await asyncio.sleep(3)
        task.cancel()
        await asyncio.wait([task])
        await runner.cleanup()

    asyncio.run(listen())
    assert 2 <= count <= 8


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
