"""From the last candle of a close, received over a socket, to its signals on disk.

A small market is built and trained on; then many symbols, with a history of random walks, are
served. For each bar the tape of its five minutes is sent over a WebSocket on the loopback
interface, the last two seconds of it as they happen, and a quarter of a second after the bar's end,
as Binance was recorded to do, the closing candles of all symbols at once. What receives it appends
it to the recorder's log; the loop follows the log. The latency of a signal is from the moment at
which its symbol's own candle was received to the moment at which the signal is on disk: waiting for
the candles of the other symbols is part of it. The recorder's own work on a message
(`make bench-recorder`: 20 µs) is not.

    python benchmarks/bench_serving.py [--symbols 100] [--bars 12] [--books-every 1]
"""

import argparse
import asyncio
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from itertools import groupby
from pathlib import Path

import aiohttp
import numpy as np
from aiohttp import web
from market import print_machine

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(1, str(Path(__file__).resolve().parents[1] / "tests"))
from ingest import health, warehouse
from ingest.history import ingest_history
from ingest.segment_writer import SegmentWriter
from ingest.segments import Frame
from ingest.settings import Settings
from ingest.simulator import Market, simulator
from serving.loop import Loop
from serving.models import Local
from serving.prepare import prepare, raw_rows
from tests.dbt_fixtures import WITHOUT_TESTS, run_dbt
from tests.serving_tape import frames

BAR = timedelta(minutes=5)
#: So much of a bar's tape is sent as it happens; before it the loop has time for all that was sent.
TAIL = timedelta(seconds=2)
PAUSE_S = 4
#: When the closing candles come after the end of the bar; in the tape they lie before `LATE`.
CANDLES = timedelta(milliseconds=250)
LATE = timedelta(seconds=1)
HISTORY = """
    insert into raw.klines by name
    select
        'binance' as exchange, 'um' as market, symbol, '1m' as "interval",
        opened_at::timestamptz as open_time, 100 + random() as open, 103 + random() as high,
        98 + random() as low, 100 + random() as close, 10 + random() as volume,
        open_time + interval 59999 milliseconds as close_time, 1000 + random() as quote_volume,
        50 as count, 5 * random() as taker_buy_volume, 500 * random() as taker_buy_quote_volume,
        true as is_closed, 'archive' as source, open_time + interval 1 minute as received_at
    from symbols, range($start, $end, interval 1 minute) as minutes (opened_at);
"""
TAPE = """
    insert into raw.trades by name
    select
        'binance' as exchange, 'um' as market, symbol, true as is_aggregate,
        epoch_ms(second)::bigint as trade_id, 100 + round(random(), 2) as price,
        round(random(), 3) + 0.001 as quantity, second::timestamptz as transact_time,
        transact_time + interval 50 milliseconds as received_at, random() < 0.5 as is_buyer_maker,
        'archive' as source
    from symbols, range($start, $end, interval 1 second) as seconds (second) where random() < 0.5;
    insert into raw.books by name
    select
        'binance' as exchange, 'um' as market, symbol, epoch_ms(second)::bigint as last_update_id,
        second::timestamptz as event_time, second::timestamptz as transact_time,
        [100 - level * 0.01::double for level in range(20)] as bid_prices,
        [1 + level * random() for level in range(20)] as bid_quantities,
        [100.01 + level * 0.01::double for level in range(20)] as ask_prices,
        [1 + level * random() for level in range(20)] as ask_quantities,
        'archive' as source, event_time as received_at
    from symbols, range($start, $end, to_seconds($every)) as seconds (second);
"""


def main() -> None:
    """Build, warm up, play the bars, print the latencies."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--symbols", type=int, default=100)
    parser.add_argument("--bars", type=int, default=9)
    parser.add_argument("--books-every", type=int, default=1)
    options = parser.parse_args()
    print_machine("onnxruntime", "pyarrow")
    with tempfile.TemporaryDirectory() as directory:
        settings = Settings(database=Path(directory) / "tapehouse.duckdb")
        market = Market(seed=3, symbols=["BTCUSDT", "ETHUSDT"], days=4, edge=1.0)
        with simulator(market) as exchange:
            learn(settings.model_copy(update={"exchange_url": exchange.url}), market)
        start = market.end.replace(tzinfo=None) + timedelta(days=12)
        tape = fill(settings, start, options)
        measure(settings, start, tape, options)


def learn(settings: Settings, market: Market) -> None:
    """Ingest a small market and train the models on it."""
    for kind in ("klines", "trades", "funding"):
        ingest_history(settings, kind, start=market.start, symbols=["BTCUSDT", "ETHUSDT"])
    run_dbt(settings.database, "build", *WITHOUT_TESTS)


def fill(settings: Settings, start: datetime, options: argparse.Namespace) -> list[Frame]:
    """Write the history of many symbols; return the frames of the bars to play."""
    end = start + options.bars * BAR
    with warehouse.writing(settings.database) as connection:
        connection.execute(
            "create temp table symbols as select format('S{:03d}USDT', i) as symbol "
            f"from range({options.symbols}) as numbers (i)"
        ).fetchall()
        parts = {"start": start - timedelta(days=11), "end": end}
        connection.execute(HISTORY, parts).fetchall()
        parts = {"start": start - timedelta(minutes=30), "end": end}
        for statement in TAPE.split(";")[:-1]:
            given = parts | ({"every": options.books_every} if "$every" in statement else {})
            connection.execute(statement, given).fetchall()
        tape = frames(connection, start, end)
        for table, at in (
            *(("klines", "open_time"), ("trades", "transact_time"), ("books", "transact_time")),
        ):
            connection.execute(
                f"delete from raw.{table} where {at} >= timestamptz '{start}+00'"
            ).fetchall()
    return tape


def measure(
    settings: Settings, start: datetime, tape: list[Frame], options: argparse.Namespace
) -> None:
    """Play the bars over a socket and print how long each close took."""
    clock = Clock(start)
    begun = time.perf_counter()
    prepared = prepare(settings, now=start, timeout_s=10)
    said: list[float] = []
    with (
        SegmentWriter(settings.segments_directory / settings.market) as writer,
        Loop(
            settings,
            prepared,
            probabilities=Local(list(prepared.asked)).probabilities,
            clock=clock,
            on_said=lambda: said.append(time.perf_counter()),
        ) as loop,
    ):
        loop.start(raw_rows(settings, prepared.plan, since=loop.since(), timeout_s=10))
        print(f"started in {time.perf_counter() - begun:.1f} s", flush=True)
        following = threading.Thread(target=loop.run)
        following.start()
        try:
            latencies = asyncio.run(
                play(start, tape, writer, clock, said, options.bars, following.is_alive)
            )
        finally:
            loop.stop()
            following.join()
    features = len(prepared.asked[0].model.features)
    values = np.array(latencies[1:]) * 1e3
    print(
        f"{options.symbols} symbols, {features} features and the volatility regime of each, "
        f"{len(prepared.asked)} models, {len(values)} closes, {values.size} bars"
    )
    print(
        f"candle received to signal durable: p50 {np.quantile(values, 0.5):.0f} ms (goal 50), "
        f"p99 {np.quantile(values, 0.99):.0f} ms (goal 150), worst {values.max():.0f} ms, "
        f"best close {np.median(values, axis=1).min():.0f} ms"
    )
    for phase in ("features", "models", "durable"):
        seconds, count = (
            health.REGISTRY.get_sample_value(f"tapehouse_signal_seconds_{kind}", {"phase": phase})
            or 0
            for kind in ("sum", "count")
        )
        if count:
            print(f"    {phase:<10} {1e3 * seconds / count:6.0f} ms, mean of {count:.0f}")


async def play(
    start: datetime,
    tape: list[Frame],
    writer: SegmentWriter,
    clock: "Clock",
    said: list[float],
    bars: int,
    is_following: Callable[[], bool],
) -> list[list[float]]:
    """Send each bar's tape, then its closing candles; return seconds from candle to signal."""
    latencies: list[list[float]] = []
    outgoing: asyncio.Queue[Frame | None] = asyncio.Queue()

    async def serve(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        while (frame := await outgoing.get()) is not None:
            await socket.send_bytes(frame.received_at.to_bytes(8) + frame.payload)
        return socket

    application = web.Application()
    application.add_routes([web.get("/", serve)])
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    streams = {frame.payload: frame.stream for frame in tape}
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(f"ws://127.0.0.1:{port}/", max_msg_size=0) as socket,
    ):

        async def hear(some: list[Frame]) -> list[float]:
            received = []
            for frame in some:
                outgoing.put_nowait(frame)
            for _ in some:
                data = (await socket.receive()).data
                frame = Frame(int.from_bytes(data[:8]), streams[data[8:]], data[8:])
                received.append(time.perf_counter())
                writer.append(frame)
            return received

        for bar in range(bars):
            closed_at = start + (bar + 1) * BAR
            begin, *ends = (moment(closed_at + each) for each in (-BAR, -TAIL, CANDLES, LATE))
            # The first candle that is heard in a bar is the last of the bar before.
            some = [
                frame
                for frame in tape
                if frame.received_at > begin + (1_000_000 if is_candle(frame) else 0)
            ]
            closing = [
                frame
                for frame in some
                if is_candle(frame) and moment(closed_at) < frame.received_at <= ends[2]
            ]
            before = [frame for frame in some if not is_candle(frame) or frame not in closing]
            clock.set(closed_at - TAIL)
            await hear([frame for frame in before if frame.received_at <= ends[0]])
            await asyncio.sleep(PAUSE_S)
            clock.set(closed_at - TAIL)
            for at, frames_then in groupby(
                (frame for frame in before if ends[0] < frame.received_at <= ends[1]),
                key=lambda frame: frame.received_at,
            ):
                await asyncio.sleep((at - moment(clock())) / 1e6)
                await hear(list(frames_then))
            await asyncio.sleep((ends[1] - moment(clock())) / 1e6)
            count = len(said)
            received = await hear(closing)
            while len(said) == count:
                if not is_following():
                    raise RuntimeError("the loop has ended; what it said stands above")
                await asyncio.sleep(0.002)
            latencies.append([said[count] - at for at in received])
            print(f"bar {bar + 1}: {1e3 * latencies[-1][0]:.0f} ms", flush=True)
        outgoing.put_nowait(None)
    await runner.cleanup()
    return latencies


class Clock:
    """A clock that goes on from where it is set, naive UTC."""

    def __init__(self, at: datetime) -> None:
        self.set(at)

    def set(self, at: datetime) -> None:
        """Go on from this moment."""
        self._at, self._set_at = at, time.perf_counter()

    def __call__(self) -> datetime:
        """Return the time."""
        return self._at + timedelta(seconds=time.perf_counter() - self._set_at)


def is_candle(frame: Frame) -> bool:
    """Whether a frame holds a candle."""
    return frame.stream.endswith("kline_1m")


def moment(at: datetime) -> int:
    """Return epoch microseconds of a naive UTC moment."""
    return (at - datetime(1970, 1, 1)) // timedelta(microseconds=1)


if __name__ == "__main__":
    main()
