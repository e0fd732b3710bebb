"""An hour of the exchange at sixty times its speed: the recorder loses nothing and does not grow.

`python benchmarks/soak.py [--minutes 60] [--speed 60] [--symbols 5]`: the simulator runs in this
process, recorder and landing in one of their own, as `tapehouse record` runs them. Connections are
dropped every so often. At the end: every candle closed, every book's changes chained or the gap
told, every frame landed once, and the memory of the last quarter beside that of the second.
"""

import argparse
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import orjson

from ingest import warehouse
from ingest.recorder import now_us, record
from ingest.segments import SegmentReader
from ingest.settings import Settings
from ingest.simulator import Market, simulator
from ingest.simulator.instruments import DEFAULT_SYMBOLS

START = datetime(2024, 12, 30, tzinfo=UTC)
NOW = START + timedelta(days=1)
# Resident memory moves by the size of the interpreter's arenas and of a segment being compressed.
GROWTH_MB = 32.0
DISCONNECT_AFTER = 4_000
LANDING_S = 5.0
# What closed in the last moments may still have been on its way.
LAST_MINUTES = 3


def listen(settings: Settings, seconds: float, speed: float, began_at: float) -> None:
    """Record with the simulated clock."""
    start_us = int(NOW.timestamp()) * 1_000_000

    def clock() -> int:
        return start_us + int((now_us() / 1e6 - began_at) * speed * 1e6)

    record(settings, market="um", seconds=seconds, clock=clock, land_s=LANDING_S, silence_s=5.0)


def resident_mb(pid: int) -> float:
    """Return the resident memory of a process."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def chains(settings: Settings) -> tuple[int, int, int]:
    """Return frames, changes of books, and breaks of their chains that no gap tells of."""
    last: dict[str, int] = {}
    untold = frame_count = changes = 0
    in_gap: set[str] = set()
    broken: set[str] = set()
    with SegmentReader(settings.segments_directory / "um") as reader:
        while frames := reader.read():
            frame_count += len(frames)
            for frame in frames:
                payload = orjson.loads(frame.payload)
                if frame.stream == "!recorder" and payload["event"] == "gap":
                    is_open = payload["gap_until"] is None
                    (in_gap.add if is_open else in_gap.discard)(payload["symbol"])
                    broken.discard(payload["symbol"])
                elif frame.stream.endswith("@depth@500ms"):
                    data = payload["data"]
                    symbol, update = data["s"], data["u"]
                    changes += 1
                    # The gap is told right after the change that shows it.
                    untold += symbol in broken
                    broken.discard(symbol)
                    if symbol in last and update > last[symbol] != data["pu"]:
                        broken |= {symbol} - in_gap
                    last[symbol] = max(update, last.get(symbol, 0))
        if reader.damaged_bytes:
            sys.exit(f"{reader.damaged_bytes} bytes of the log cannot be read")
    return frame_count, changes, untold


def main() -> None:
    """Run, and exit with 1 if something was lost or grew."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=int, default=60)
    parser.add_argument("--speed", type=float, default=60.0)
    parser.add_argument("--symbols", type=int, default=5)
    options = parser.parse_args()
    symbols = list(DEFAULT_SYMBOLS)[: options.symbols]
    market = Market(7, symbols, start=START, days=2)
    seconds = options.minutes * 60 / options.speed
    context = multiprocessing.get_context("spawn")
    with (
        tempfile.TemporaryDirectory() as folder,
        simulator(market, speed=options.speed, now=NOW) as exchange,
    ):
        exchange.faults.replace({"disconnect_after": DISCONNECT_AFTER})
        settings = Settings(
            database=Path(folder) / "tapehouse.duckdb", exchange_url=exchange.url, symbols=symbols
        )
        began_at = now_us() / 1e6
        work = partial(listen, settings, seconds, options.speed, began_at)
        process = context.Process(target=work)
        process.start()
        memory: list[float] = []
        until = time.monotonic() + seconds
        while time.monotonic() < until and process.is_alive():
            memory.append(resident_mb(process.pid or 0))
            time.sleep(0.5)
        process.join()
        frame_count, changes, untold = chains(settings)
        with warehouse.reading(settings.database) as connection:
            landed = connection.execute(
                "select sum(frame_count)::bigint, sum(reject_count)::bigint, count(*) "
                "from raw.log_landings"
            ).fetchall()[0]
            closed = connection.execute(
                "select symbol, list(distinct epoch_us(open_time) // 60000000 order by 1) "
                "from raw.klines where is_closed group by symbol order by symbol"
            ).fetchall()
            books = connection.execute("select count(*) from raw.books").fetchall()[0][0]
    quarter = len(memory) // 4
    before, after = (
        statistics.median(memory[quarter : 2 * quarter]),
        statistics.median(memory[-quarter:]),
    )
    holes = {
        symbol: missing
        for symbol, minutes in closed
        if (missing := sorted(set(range(minutes[0], minutes[-1] - LAST_MINUTES)) - set(minutes)))
    }
    print(f"{options.minutes} minutes at speed {options.speed:g}, {len(symbols)} symbols")
    print(f"frames {frame_count:,}, changes of books {changes:,}, books {books:,}")
    print(f"landings while it ran and at its end: {landed[2]:,}")
    candles = [minutes for _, minutes in closed]
    print(f"closed candles {list(map(len, candles))}")
    print(f"resident memory {before:.0f} MB in the second quarter, {after:.0f} MB in the last")
    faults = [
        (process.exitcode != 0, f"the recorder ended with {process.exitcode}"),
        (landed[0] != frame_count, f"{landed[0]} of {frame_count} frames landed"),
        (landed[1] != 0, f"{landed[1]} rows were rejected"),
        (bool(holes) or len(closed) != len(symbols), f"candles are missing: {holes}"),
        (min(map(len, candles), default=0) < options.minutes // 2, "too few candles closed"),
        (untold > 0, f"{untold} breaks of books were not told"),
        (after - before > GROWTH_MB, f"memory grew by {after - before:.0f} MB"),
    ]
    if found := [text for is_wrong, text in faults if is_wrong]:
        sys.exit("; ".join(found))


if __name__ == "__main__":
    main()
