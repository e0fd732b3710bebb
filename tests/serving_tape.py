"""What a recorder would have heard of the rows of a warehouse."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import duckdb
import orjson

from ingest.segments import Frame

_DELAY = timedelta(milliseconds=80)


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
