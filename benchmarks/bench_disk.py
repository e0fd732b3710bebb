"""What a day of one-second books of ten symbols takes on disk, by recorded books of the exchange.

`python benchmarks/bench_disk.py`: the changes of two recordings (ETHBTC, 2 hours, and BTCUSDT,
6 minutes, both in ``../shared/data/raw_captures``) go through the recorder's own book, log and
landing. Each recording is taken for a symbol's day: the log by its length, the warehouse by its
rows, repeated until they are a day. DuckDB compresses some thousand rows at a time, so that
repeated ones take as much room as others. Exit code 1: more than 1 GB.
"""

import gzip
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from ingest import warehouse
from ingest.drain import drain
from ingest.live_books import SNAPSHOT_LEVELS, Change, LiveBook
from ingest.segment_writer import SegmentWriter
from ingest.segments import Frame
from ingest.settings import Settings

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
DAY_S = 86_400
SYMBOLS = 10
GOAL_MB = 1000.0


def messages(capture: Path) -> Iterator[dict[str, Any]]:
    """Yield the messages of a recording."""
    for line in gzip.decompress(capture.read_bytes()).splitlines():
        yield orjson.loads(line[line.find(b"{") :])


def ethbtc() -> list[dict[str, Any]]:
    """Return a snapshot and the changes that continue it, one a second."""
    found = pq.read_table(DATA / "spot" / "depth_snapshot_ETHBTC_20201101.parquet").to_pylist()
    levels = [level for level in found if level["file_hour"] == found[0]["file_hour"]]
    snapshot = {
        "lastUpdateId": levels[0]["last_update_id"],
        "bids": [[each["price"], each["qty"]] for each in levels if each["side"] == "b"],
        "asks": [[each["price"], each["qty"]] for each in levels if each["side"] == "a"],
    }
    name = "deep_orderbook_ETHBTC_20201101_0900_1100_depthUpdate.jsonl.gz"
    return [snapshot, *messages(DATA / "raw_captures" / name)]


def btcusdt() -> list[dict[str, Any]]:
    """Return changes ten times a second, with a snapshot among them."""
    found = messages(DATA / "raw_captures" / "hftbacktest_spot_btcusdt_20240808.gz")
    return [
        message.get("data", message)
        for message in found
        if "lastUpdateId" in message or "@depth" in message["stream"]
    ]


def size(log: Path) -> int:
    """Return the bytes of a log."""
    return sum(path.stat().st_size for path in log.iterdir())


def measured(symbol: str, recorded: list[dict[str, Any]], directory: Path) -> dict[str, float]:
    """Return megabytes a day of a symbol: its books in log and warehouse, and its changes."""
    settings = Settings(database=directory / "tapehouse.duckdb", market="spot")
    books, changes = settings.segments_directory / "spot", directory / "changes"
    stream = f"{symbol.lower()}@depth"
    now = 0
    with SegmentWriter(books) as shown, SegmentWriter(changes) as heard:

        def say(name: str, payload: bytes) -> None:
            if "@" in name:
                shown.append(Frame(now, name, payload))

        book = LiveBook(symbol, say, lambda _: None, 0)
        times = [message["E"] for message in recorded if "E" in message]
        for message in recorded:
            if "E" in message:
                now = message["E"] * 1000
                payload = orjson.dumps({"stream": stream, "data": message})
                heard.append(Frame(now, stream, payload))
                book.take(Change.of(message))
            else:
                # It is taken for the whole book: the recordings have no second one.
                sides = {side: message[side][: SNAPSHOT_LEVELS - 1] for side in ("bids", "asks")}
                book.start(message | sides)
    seconds = (times[-1] - times[0]) / 1000
    rows = drain(settings).row_count
    if not 0.95 * seconds < rows < 1.05 * seconds:
        sys.exit(f"{symbol}: {rows} books of {seconds:.0f} seconds")
    with warehouse.writing(settings.database) as connection:
        connection.execute(
            "insert into raw.books select * exclude (part) replace "
            "(event_time + to_seconds(day.part * $1) as event_time) "
            "from raw.books cross join range(1, $2) as day (part)",
            [int(seconds) + 1, round(DAY_S / seconds)],
        )
        connection.execute("checkpoint")
        count, used = connection.execute(
            "select (select count(*) from raw.books), used_blocks * block_size "
            "from pragma_database_size()"
        ).fetchall()[0]
    return {
        "log": size(books) / seconds * DAY_S / 1e6,
        "warehouse": used / count * DAY_S / 1e6,
        "changes": size(changes) / seconds * DAY_S / 1e6,
    }


def main() -> None:
    """Print megabytes, and exit with 1 if they are too many."""
    if not DATA.is_dir():
        sys.exit(f"recorded market data is absent: {DATA}")
    table = Table("MB a day", "books, log", "books, warehouse", f"of {SYMBOLS} symbols", "changes")
    most = 0.0
    for symbol, recorded in (("ETHBTC", ethbtc()), ("BTCUSDT", btcusdt())):
        with tempfile.TemporaryDirectory() as folder:
            found = measured(symbol, recorded, Path(folder))
        total = SYMBOLS * (found["log"] + found["warehouse"])
        most = max(most, total)
        cells = (found["log"], found["warehouse"], total, SYMBOLS * found["changes"])
        table.add_row(symbol, *(f"{value:,.0f}" for value in cells))
    Console(width=100).print(table)
    if most > GOAL_MB:
        sys.exit(f"{most:,.0f} MB of books a day are more than {GOAL_MB:,.0f}")


if __name__ == "__main__":
    main()
