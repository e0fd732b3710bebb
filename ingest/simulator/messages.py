"""Stream messages, by the name of their stream, over an interval of simulated time."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from ingest.simulator.exchange import last_rows
from ingest.simulator.formats import Decimals, decimals, levels, number, records
from ingest.simulator.source import HOUR, INTERVALS, SECOND, Book, Source

Message = tuple[int, dict[str, Any]]
_KLINE_UPDATE = 2 * SECOND
_NAME = re.compile(
    r"(?P<symbol>[^@!]+)@(?:kline_(?P<interval>\w+)|depth(?P<levels>5|10|20)?"
    r"|(?P<plain>aggTrade|trade|bookTicker|markPrice|forceOrder))(?:@(?P<pace>\d+m?s))?"
)
_ALL = {"!forceOrder@arr": "forceOrder"}


@dataclass(frozen=True)
class Stream:
    """A stream of one market: its name, what it carries and of which symbols."""

    name: str
    kind: str
    content: str
    symbols: tuple[str, ...]
    interval: str = ""
    levels: int = 0
    pace: int = 3 * SECOND


def parse(source: Source, kind: str, name: str) -> Stream | None:
    """Read a stream's name; None if there is no such stream."""
    listed = source.instruments(kind)
    if name in _ALL:
        return Stream(name, kind, _ALL[name], tuple(listed)) if kind == "um" else None
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    part = match.groupdict()
    content = part["plain"] or ("kline" if part["interval"] else "depth")
    if kind == "spot" and content in ("markPrice", "forceOrder"):
        return None
    if content == "kline" and part["interval"] not in INTERVALS:
        return None
    symbol = part["symbol"].upper()
    return Stream(
        name,
        kind,
        content,
        (symbol,) if symbol in listed else (),
        part["interval"] or "",
        int(part["levels"] or 0),
        SECOND if part["pace"] == "1s" else 3 * SECOND,
    )


def messages(source: Source, stream: Stream, start: int, end: int) -> Iterator[Message]:
    """Yield (time, payload) of ``[start, end)`` in order, symbol by symbol."""
    for symbol in stream.symbols:
        digits = decimals(stream.kind, source.instruments(stream.kind)[symbol])
        yield from _CONTENTS[stream.content](source, stream, symbol, digits, start, end)


def _head(event: str, time: int, symbol: str) -> dict[str, Any]:
    return {"e": event, "E": time // 1000, "s": symbol}


def _aggregate_trades(
    source: Source, stream: Stream, symbol: str, digits: Decimals, start: int, end: int
) -> Iterator[Message]:
    best_match = {"M": True} if stream.kind == "spot" else {}
    for row in records(source.aggregate_trades(stream.kind, symbol, start, end)):
        time = row["transact_time"]
        yield (
            time,
            _head("aggTrade", time, symbol)
            | {
                "a": row["agg_trade_id"],
                "p": number(row["price"], digits.price),
                "q": number(row["quantity"], digits.quantity),
                "f": row["first_trade_id"],
                "l": row["last_trade_id"],
                "T": time // 1000,
                "m": row["is_buyer_maker"],
            }
            | best_match,
        )


def _trades(
    source: Source, stream: Stream, symbol: str, digits: Decimals, start: int, end: int
) -> Iterator[Message]:
    extra: dict[str, Any] = {"M": True} if stream.kind == "spot" else {"X": "MARKET"}
    for row in records(source.trades(stream.kind, symbol, start, end)):
        yield (
            row["time"],
            _head("trade", row["time"], symbol)
            | {
                "t": row["id"],
                "p": number(row["price"], digits.price),
                "q": number(row["qty"], digits.quantity),
                "T": row["time"] // 1000,
                "m": row["is_buyer_maker"],
            }
            | extra,
        )


def _klines(
    source: Source, stream: Stream, symbol: str, digits: Decimals, start: int, end: int
) -> Iterator[Message]:
    """Show the candle every two seconds in which it changed, and once when it closes."""
    width = INTERVALS[stream.interval]
    first = -(-start // _KLINE_UPDATE) * _KLINE_UPDATE
    times = source.aggregate_trades(stream.kind, symbol, first - _KLINE_UPDATE, end)[
        "transact_time"
    ]
    changed = set((times // _KLINE_UPDATE + 1).tolist())
    for time in range(first, end, _KLINE_UPDATE):
        is_closed = time % width == 0
        if not is_closed and time // _KLINE_UPDATE not in changed:
            continue
        opened = (time - 1) // width * width
        rows = records(
            source.klines(stream.kind, symbol, stream.interval, opened, opened + 1, now=time)
        )
        for row in rows:
            yield (
                time,
                _head("kline", time, symbol)
                | {"k": _candle(row, symbol, stream.interval, digits, is_closed)},
            )


def _candle(
    row: dict[str, Any], symbol: str, interval: str, digits: Decimals, is_closed: bool
) -> dict[str, Any]:
    return {
        "t": row["open_time"] // 1000,
        "T": row["close_time"] // 1000,
        "s": symbol,
        "i": interval,
        "f": row["first_trade_id"],
        "L": row["last_trade_id"],
        "o": number(row["open"], digits.price),
        "c": number(row["close"], digits.price),
        "h": number(row["high"], digits.price),
        "l": number(row["low"], digits.price),
        "v": number(row["volume"], digits.quantity),
        "n": row["count"],
        "x": is_closed,
        "q": number(row["quote_volume"], digits.quote),
        "V": number(row["taker_buy_volume"], digits.quantity),
        "Q": number(row["taker_buy_quote_volume"], digits.quote),
        "B": "0",
    }


def _books(
    source: Source, stream: Stream, symbol: str, start: int, end: int
) -> Iterator[tuple[Book, Book]]:
    """Yield each new book of the interval with the one it replaces."""
    before: Book | None = None
    for time in source.book_times(stream.kind, symbol, start, end).tolist():
        before = before or source.book(stream.kind, symbol, time - 1)
        book = source.book(stream.kind, symbol, time)
        if before is not None and book is not None:
            yield before, book
        before = book


def _depth(
    source: Source, stream: Stream, symbol: str, digits: Decimals, start: int, end: int
) -> Iterator[Message]:
    for before, book in _books(source, stream, symbol, start, end):
        bids, asks = levels(book, digits, stream.levels or len(book.bid_prices))
        if stream.levels and stream.kind == "spot":
            yield book.time, {"lastUpdateId": book.update_id, "bids": bids, "asks": asks}
            continue
        if not stream.levels:
            old_bids, old_asks = levels(before, digits, len(before.bid_prices))
            bids, asks = _changes(old_bids, bids), _changes(old_asks, asks)
        head = _head("depthUpdate", book.time, symbol)
        ids = {"U": before.update_id + 1, "u": book.update_id}
        if stream.kind == "um":
            head |= {"T": book.time // 1000}
            ids |= {"pu": before.update_id}
        yield book.time, head | ids | {"b": bids, "a": asks}


def _changes(old: list[list[str]], new: list[list[str]]) -> list[list[str]]:
    """Return the levels that differ; one that is gone has quantity zero."""
    quantities = {price: quantity for price, quantity in old}
    changed = [level for level in new if quantities.pop(level[0], None) != level[1]]
    kept = {price for price, _ in new}
    gone = [[price, f"{0:.{_digits(quantity)}f}"] for price, quantity in old if price not in kept]
    return changed + gone


def _digits(text: str) -> int:
    return len(text.partition(".")[2])


def _book_tickers(
    source: Source, stream: Stream, symbol: str, digits: Decimals, start: int, end: int
) -> Iterator[Message]:
    for before, book in _books(source, stream, symbol, start, end):
        best = levels(book, digits, 1)
        if best == levels(before, digits, 1):
            continue
        (bid,), (ask,) = best
        values = {
            "u": book.update_id,
            "s": symbol,
            "b": bid[0],
            "B": bid[1],
            "a": ask[0],
            "A": ask[1],
        }
        if stream.kind == "um":
            time = book.time // 1000
            values = {"e": "bookTicker"} | values | {"T": time, "E": time}
        yield book.time, values


def _mark_prices(
    source: Source, stream: Stream, symbol: str, digits: Decimals, start: int, end: int
) -> Iterator[Message]:
    for time in range(-(-start // stream.pace) * stream.pace, end, stream.pace):
        mark, index = source.premium(symbol, time)
        rates = last_rows(source, lambda first, last: source.funding(symbol, first, last), time, 1)[
            "last_funding_rate"
        ]
        yield (
            time,
            _head("markPriceUpdate", time, symbol)
            | {
                "p": number(mark, 8),
                "P": number(index, 8),
                "i": number(index, 8),
                "r": number(float(rates[-1]), 8) if len(rates) else "0.00000000",
                "T": (time // (8 * HOUR) + 1) * 8 * HOUR // 1000,
            },
        )


def _forced_orders(
    source: Source, stream: Stream, symbol: str, digits: Decimals, start: int, end: int
) -> Iterator[Message]:
    for row in records(source.liquidations(symbol, start, end)):
        order = {
            "s": symbol,
            "S": row["side"],
            "o": row["order_type"],
            "f": row["time_in_force"],
            "q": number(row["original_quantity"], digits.quantity),
            "p": number(row["price"], digits.price),
            "ap": number(row["average_price"], digits.price),
            "X": row["order_status"],
            "l": number(row["last_fill_quantity"], digits.quantity),
            "z": number(row["accumulated_fill_quantity"], digits.quantity),
            "T": row["time"] // 1000,
        }
        yield row["time"], {"e": "forceOrder", "E": row["time"] // 1000, "o": order}


_CONTENTS: dict[str, Callable[..., Iterator[Message]]] = {
    "aggTrade": _aggregate_trades,
    "trade": _trades,
    "kline": _klines,
    "depth": _depth,
    "bookTicker": _book_tickers,
    "markPrice": _mark_prices,
    "forceOrder": _forced_orders,
}
