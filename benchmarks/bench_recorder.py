"""The recorder on one core, beside a bare WebSocket reader that only counts.

`python benchmarks/bench_recorder.py [messages]`: a server in a process of its own sends trades,
changes of books, candles and mark prices of ten symbols as fast as they are taken. The recorder
writes them all, keeps and writes the books, and compresses what it sealed; the bare reader counts.
Then the log is compared with what was sent, and landed.
"""

import asyncio
import itertools
import json
import multiprocessing
import os
import resource
import signal
import sys
import tempfile
from collections import Counter
from multiprocessing.connection import Connection
from pathlib import Path
from time import perf_counter

import aiohttp
from aiohttp import web

from ingest.drain import drain
from ingest.recorder import record
from ingest.segments import SegmentReader
from ingest.settings import Settings

SYMBOLS = [f"COIN{number}USDT" for number in range(10)]
MARKET_PATH, BOOKS_PATH = "/um/market/stream", "/um/public/stream"
# Of twenty messages five are changes of books, two candles, one a mark price, the others trades.
MIX = "tbttbttktbttbttktbtm"
START_MS = 1_735_603_200_000
LEVELS = 10


def messages(count: int) -> dict[str, list[bytes]]:
    """Return the messages of each address as WebSocket frames."""
    sent: dict[str, list[bytes]] = {MARKET_PATH: [], BOOKS_PATH: []}
    numbers = dict.fromkeys(SYMBOLS, 0)
    symbols = itertools.cycle(SYMBOLS)
    for position, kind in zip(range(count), itertools.cycle(MIX), strict=False):
        symbol = next(symbols)
        time = START_MS + position // 20
        head = {"E": time, "s": symbol}
        if kind == "b":
            numbers[symbol] += 1
            last = numbers[symbol]
            levels = [
                [f"{100 - level - position % 3}.10", f"{position % 97}.5"]
                for level in range(LEVELS)
            ]
            asks = [
                [f"{101 + level + position % 3}.10", f"{position % 89}.5"]
                for level in range(LEVELS)
            ]
            data = {"e": "depthUpdate", **head, "T": time, "U": last, "u": last, "pu": last - 1}
            stream, data = f"{symbol.lower()}@depth@500ms", data | {"b": levels, "a": asks}
        elif kind == "t":
            stream = f"{symbol.lower()}@aggTrade"
            data = {"e": "aggTrade", **head, "a": position, "p": "100.10", "q": "0.5",
                    "f": position, "l": position, "T": time, "m": True}  # fmt: skip
        elif kind == "k":
            stream = f"{symbol.lower()}@kline_1m"
            candle = dict.fromkeys("ochlvqVQ", "100.1") | {"t": START_MS, "T": START_MS + 59_999}
            data = {
                "e": "kline",
                **head,
                "k": candle | {"s": symbol, "i": "1m", "n": 5, "x": False},
            }
        else:
            stream = f"{symbol.lower()}@markPrice@1s"
            data = {"e": "markPriceUpdate", **head, "p": "100.1", "i": "100.1", "P": "100.1",
                    "r": "0.0001", "T": START_MS}  # fmt: skip
        text = json.dumps({"stream": stream, "data": data}, separators=(",", ":")).encode()
        size = len(text)
        header = bytes((0x81, size)) if size < 126 else b"\x81\x7e" + size.to_bytes(2, "big")
        sent[BOOKS_PATH if kind == "b" else MARKET_PATH].append(header + text)
    return sent


def serve(count: int, told: Connection) -> None:
    """Send the messages to whoever connects, and answer the recorder's requests."""
    sent = messages(count)
    chunks = {
        path: [b"".join(frames[start : start + 200]) for start in range(0, len(frames), 200)]
        for path, frames in sent.items()
    }

    async def stream(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(max_msg_size=0, compress=False)
        await socket.prepare(request)
        transport = request.transport
        assert transport
        # Past aiohttp's own writer, so that the server is never the slower one.
        for chunk in chunks[request.path]:
            transport.write(chunk)
            while transport.get_write_buffer_size() > 4_000_000:
                await asyncio.sleep(0.001)
        async for _ in socket:
            pass
        return socket

    async def answer(request: web.Request) -> web.Response:
        if request.path.endswith("/depth"):
            return web.json_response({"lastUpdateId": 0, "E": START_MS, "bids": [], "asks": []})
        if request.path.endswith("/time"):
            return web.json_response({"serverTime": START_MS})
        return web.json_response([])

    async def run() -> None:
        app = web.Application()
        app.add_routes([web.get(path, stream) for path in chunks])
        app.add_routes([web.get("/{path:.*}", answer)])
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        told.send(f"http://127.0.0.1:{runner.addresses[0][1]}")
        await asyncio.Event().wait()

    asyncio.run(run())


def on_one_core() -> None:
    """Keep this process and its threads on one core, the last."""
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


def count_only(url: str, count: int, told: Connection) -> None:
    """Read all messages and tell the seconds."""
    on_one_core()

    async def read() -> float:
        heard = 0
        started = 0.0
        done = asyncio.Event()

        async def follow(session: aiohttp.ClientSession, path: str) -> None:
            nonlocal heard, started
            address = url.replace("http", "ws") + path
            async with session.ws_connect(address, autoping=False, max_msg_size=0) as socket:
                async for _ in socket:
                    started = started or perf_counter()
                    heard += 1
                    if heard == count:
                        done.set()

        async with aiohttp.ClientSession() as session:
            tasks = [
                asyncio.create_task(follow(session, path)) for path in (MARKET_PATH, BOOKS_PATH)
            ]
            await done.wait()
            seconds = perf_counter() - started
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            return seconds

    told.send(asyncio.run(read()))


def record_all(settings: Settings, count: int, told: Connection) -> None:
    """Record all messages; tell the seconds, the processor's seconds and the memory (MB)."""
    on_one_core()
    started = used = 0.0

    def on_message(heard: int) -> None:
        nonlocal started, used
        if heard == 1:
            started, used = perf_counter(), processor_s()
        elif heard == count:
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            told.send((perf_counter() - started, processor_s() - used, peak))
            os.kill(os.getpid(), signal.SIGTERM)

    record(settings, market="um", on_message=on_message, is_landed=False)


def processor_s() -> float:
    """Return the seconds of processor that this process took."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def in_process(work: object, *arguments: object) -> object:
    """Run a function in a process of its own and return what it tells."""
    context = multiprocessing.get_context("spawn")
    mine, its = context.Pipe()
    process = context.Process(target=work, args=(*arguments, its))
    process.start()
    answer = mine.recv()
    process.join()
    return answer


def check(settings: Settings, count: int) -> tuple[int, int]:
    """Compare the log with what was sent; return its bytes and the frames of the recorder's own."""
    expected = Counter(
        frame[frame.index(b"{") :] for frames in messages(count).values() for frame in frames
    )
    own = 0
    log = settings.segments_directory / "um"
    with SegmentReader(log) as reader:
        while frames := reader.read():
            for frame in frames:
                if frame.connection:
                    expected[frame.payload] -= 1
                else:
                    own += 1
    lost = sum(number for number in expected.values() if number > 0)
    doubled = -sum(number for number in expected.values() if number < 0)
    if lost or doubled:
        sys.exit(f"{lost} messages were lost and {doubled} came twice")
    return sum(path.stat().st_size for path in log.iterdir()), own


def main() -> None:
    """Print rates and their ratio."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 400_000
    context = multiprocessing.get_context("spawn")
    mine, its = context.Pipe()
    server = context.Process(target=serve, args=(count, its), daemon=True)
    server.start()
    url = mine.recv()
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(
            database=Path(folder) / "tapehouse.duckdb", exchange_url=url, symbols=SYMBOLS
        )
        bare = in_process(count_only, url, count)
        seconds, used, peak = in_process(record_all, settings, count)
        size, own = check(settings, count)
        started = perf_counter()
        report = drain(settings)
        landing = perf_counter() - started
    server.terminate()
    print(f"{count:,} messages, {own:,} frames of the recorder's own, all in the log")
    print(f"bare reader       {bare:7.2f} s  {count / bare:10,.0f} messages/s")
    print(f"recorder          {seconds:7.2f} s  {count / seconds:10,.0f} messages/s"
          f"  ({used:.1f} s of processor, peak {peak:,.0f} MB)")  # fmt: skip
    print(f"ratio             {seconds / bare:7.1f}")
    print(f"log               {size / 1e6:7.1f} MB {size / count:9.1f} bytes/message")
    print(f"landing           {landing:7.2f} s  {(count + own) / landing:10,.0f} frames/s"
          f"  ({report.row_count:,} rows)")  # fmt: skip


if __name__ == "__main__":
    main()
