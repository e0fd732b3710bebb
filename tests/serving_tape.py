"""What a recorder would have heard of the rows of a warehouse, played to a scoring loop."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import orjson

from ingest import warehouse
from ingest.drain import drain
from ingest.segment_writer import SegmentWriter
from ingest.segments import Frame
from ingest.settings import Settings
from serving.loop import Loop
from serving.models import Local
from serving.prepare import Prepared, raw_rows
from tests.serving_fixtures import SYMBOLS, copy

_DELAY = timedelta(milliseconds=80)
MODEL = "ml_order_flow"
CHAMPIONS = """
    select symbol, opened_at, model_version, probability, threshold, signal
    from sig_order_flow where opened_at >= $start and opened_at < $end order by all
"""
ENSEMBLES = """
    select symbol, opened_at, ensemble_name, probability, signal, reason
    from sig_ensembles
    where opened_at >= $start and opened_at < $end order by all
"""
SERVED_CHAMPIONS = """
    select symbol, opened_at::timestamp, model_version, probability, threshold, signal
    from raw.signals where model_name = 'ml_order_flow' and stage = 'champion' order by all
"""
SERVED_ENSEMBLES = """
    select symbol, opened_at::timestamp, model_name, probability, signal, reason
    from raw.signals where stage = 'ensemble' order by all
"""


class Clock:
    """A clock that the test moves."""

    def __init__(self, now: datetime) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now


class Tape:
    """A warehouse that ends at a moment, and the frames of what came after it."""

    def __init__(self, built: Path, directory: Path, start: datetime, end: datetime) -> None:
        self.start, self.end = start, end
        copy(built, directory)
        self.settings = Settings(database=directory / "tapehouse.duckdb", symbols=SYMBOLS)
        with warehouse.writing(self.settings.database) as connection:
            self.frames = frames(connection, start, end + timedelta(minutes=1))
            self.expected = {
                name: connection.execute(query, {"start": start, "end": end}).fetchall()
                for name, query in (("champions", CHAMPIONS), ("ensembles", ENSEMBLES))
            }
            for table, time in (
                ("klines", "open_time"),
                ("trades", "transact_time"),
                ("books", "coalesce(transact_time, event_time, received_at)"),
            ):
                connection.execute(
                    f"delete from raw.{table} where {time} >= timestamptz '{start}+00'"
                )
        self.clock = Clock(start)
        self.writer = SegmentWriter(self.settings.segments_directory / "um")
        self.told: list[Any] = []

    def loop(
        self, prepared: Prepared, local: Local | None = None, *, late_from: datetime | None = None
    ) -> Loop:
        """Start a loop as `serve` does."""
        loop = Loop(
            self.settings,
            prepared,
            probabilities=(local or Local(prepared.asked)).probabilities,
            announce=self.told.append,
            clock=self.clock,
            late_from=late_from,
        )
        loop.start(raw_rows(self.settings, prepared.plan, since=loop.since(), timeout_s=10))
        return loop

    def play(self, loop: Loop, some: list[Frame]) -> None:
        """Write frames minute by minute and let the loop do what there is to do."""
        minutes: dict[int, list[Frame]] = {}
        for frame in some:
            minutes.setdefault(frame.received_at // 60_000_000, []).append(frame)
        for minute, heard in minutes.items():
            self.writer.append_all(heard)
            self.clock.now = at((minute + 1) * 60_000_000)
            self.settle(loop)

    def settle(self, loop: Loop) -> None:
        """Let the loop do what there is to do."""
        for _ in range(4):
            loop.step()

    def said(self) -> dict[str, list[tuple[Any, ...]]]:
        """Land the outbox and return what it said."""
        drain(self.settings)
        with warehouse.reading(self.settings.database) as connection:
            return {
                "champions": connection.execute(SERVED_CHAMPIONS).fetchall(),
                "ensembles": connection.execute(SERVED_ENSEMBLES).fetchall(),
            }


@contextmanager
def holding(database: Path) -> Iterator[None]:
    """Hold the warehouse from another process."""
    code = (
        "import sys, duckdb; held = duckdb.connect(sys.argv[1]); "
        "print(1, flush=True); sys.stdin.readline()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(database)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout
        process.stdout.readline()
        yield
        process.communicate(b"\n")


def at(microseconds: int) -> datetime:
    return datetime.fromtimestamp(microseconds / 1e6, UTC).replace(tzinfo=None)


def frames(connection: duckdb.DuckDBPyConnection, start: datetime, end: datetime) -> list[Frame]:
    """Return the frames of the klines, trades and books of an interval, in order of arrival."""
    found = [
        *_klines(connection, start, end),
        *_trades(connection, start, end),
        *_books(connection, start, end),
    ]
    return sorted(found, key=lambda frame: frame.received_at)


def _rows(
    connection: duckdb.DuckDBPyConnection, table: str, time: str, start: datetime, end: datetime
) -> list[dict[str, object]]:
    return (
        connection.sql(
            f"select * from raw.{table} where {time} >= $start and {time} < $end order by all",
            params={"start": start.replace(tzinfo=UTC), "end": end.replace(tzinfo=UTC)},
        )
        .to_arrow_table()
        .to_pylist()
    )


def _klines(
    connection: duckdb.DuckDBPyConnection, start: datetime, end: datetime
) -> Iterator[Frame]:
    for row in _rows(connection, "klines", "open_time", start, end):
        candle = {
            "t": _ms(row["open_time"]),
            "T": _ms(row["close_time"]),
            "s": row["symbol"],
            "i": row["interval"],
            "o": str(row["open"]),
            "c": str(row["close"]),
            "h": str(row["high"]),
            "l": str(row["low"]),
            "v": str(row["volume"]),
            "n": row["count"],
            "x": True,
            "q": str(row["quote_volume"]),
            "V": str(row["taker_buy_volume"]),
            "Q": str(row["taker_buy_quote_volume"]),
        }
        closed_at = row["open_time"] + timedelta(minutes=1)
        message = {"e": "kline", "E": _ms(closed_at), "s": row["symbol"], "k": candle}
        yield _frame(f"{row['symbol'].lower()}@kline_1m", message, closed_at + 2 * _DELAY)


def _trades(
    connection: duckdb.DuckDBPyConnection, start: datetime, end: datetime
) -> Iterator[Frame]:
    for row in _rows(connection, "trades", "transact_time", start, end):
        message = {
            "e": "aggTrade" if row["is_aggregate"] else "trade",
            "s": row["symbol"],
            "a" if row["is_aggregate"] else "t": row["trade_id"],
            "p": str(row["price"]),
            "q": str(row["quantity"]),
            "f": row["first_trade_id"],
            "l": row["last_trade_id"],
            "T": _ms(row["transact_time"]),
            "m": row["is_buyer_maker"],
        }
        yield _frame(f"{row['symbol'].lower()}@aggTrade", message, row["transact_time"] + _DELAY)


def _books(
    connection: duckdb.DuckDBPyConnection, start: datetime, end: datetime
) -> Iterator[Frame]:
    time = "coalesce(transact_time, event_time, received_at)"
    for row in _rows(connection, "books", time, start, end):
        at = row["transact_time"] or row["event_time"]
        message = {
            "e": "depthUpdate",
            "s": row["symbol"],
            "u": row["last_update_id"],
            "E": _ms(row["event_time"]),
            "T": _ms(row["transact_time"]),
            **{
                side[0]: [
                    [str(price), str(quantity)]
                    for price, quantity in zip(
                        row[f"{side}_prices"], row[f"{side}_quantities"], strict=True
                    )
                ]
                for side in ("bid", "ask")
            },
        }
        yield _frame(f"{row['symbol'].lower()}@depth20@1000ms", message, at + _DELAY)


def _frame(stream: str, message: object, at: datetime) -> Frame:
    payload = orjson.dumps({"stream": stream, "data": message})
    return Frame(round(at.timestamp() * 1e6), stream, payload)


def _ms(at: datetime | None) -> int | None:
    return None if at is None else round(at.timestamp() * 1000)
