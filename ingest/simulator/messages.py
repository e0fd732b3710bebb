"""Stream messages, by the name of their stream, over an interval of simulated time."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from ingest.simulator.exchange import last_rows
from ingest.simulator.formats import Decimals, decimals, levels, number, records, shortest, whole
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


@dataclass(frozen=True)
class _Window:
    source: Source
    stream: Stream
    symbol: str
    digits: Decimals
    start: int
    end: int


def messages(source: Source, stream: Stream, start: int, end: int) -> Iterator[Message]:
    """Yield (time, payload) of ``[start, end)`` in order, symbol by symbol."""
    for symbol in stream.symbols:
        digits = decimals(stream.kind, source.instruments(stream.kind)[symbol])
        yield from _CONTENTS[stream.content](_Window(source, stream, symbol, digits, start, end))


def _head(event: str, time: int, symbol: str) -> dict[str, Any]:
    return {"e": event, "E": time // 1000, "s": symbol}


def _aggregate_trades(window: _Window) -> Iterator[Message]:
    best_match = {"M": True} if window.stream.kind == "spot" else {}
    for row in records(
        window.source.aggregate_trades(window.stream.kind, window.symbol, window.start, window.end)
    ):
        time = row["transact_time"]
        yield (
            time,
            _head("aggTrade", time, window.symbol)
            | {
                "a": row["agg_trade_id"],
                "p": number(row["price"], window.digits.price),
                "q": number(row["quantity"], window.digits.quantity),
                "f": row["first_trade_id"],
                "l": row["last_trade_id"],
                "T": time // 1000,
                "m": row["is_buyer_maker"],
            }
            | best_match,
        )


def _trades(window: _Window) -> Iterator[Message]:
    extra: dict[str, Any] = {"M": True} if window.stream.kind == "spot" else {"X": "MARKET"}
    for row in records(
        window.source.trades(window.stream.kind, window.symbol, window.start, window.end)
    ):
        yield (
            row["time"],
            _head("trade", row["time"], window.symbol)
            | {
                "t": row["id"],
                "p": number(row["price"], window.digits.price),
                "q": number(row["qty"], window.digits.quantity),
                "T": row["time"] // 1000,
                "m": row["is_buyer_maker"],
            }
            | extra,
        )


def _klines(window: _Window) -> Iterator[Message]:
    """Show the candle every two seconds in which it changed, and once when it closes."""
    width = INTERVALS[window.stream.interval]
    first = -(-window.start // _KLINE_UPDATE) * _KLINE_UPDATE
    times = window.source.aggregate_trades(
        window.stream.kind, window.symbol, first - _KLINE_UPDATE, window.end
    )["transact_time"]
    changed = set((times // _KLINE_UPDATE + 1).tolist())
    for time in range(first, window.end, _KLINE_UPDATE):
        is_closed = time % width == 0
        if not is_closed and time // _KLINE_UPDATE not in changed:
            continue
        opened = (time - 1) // width * width
        rows = records(
            window.source.klines(
                window.stream.kind,
                window.symbol,
                window.stream.interval,
                opened,
                opened + 1,
                now=time,
            )
        )
        for row in rows:
            yield (
                time,
                _head("kline", time, window.symbol)
                | {
                    "k": _candle(
                        row, window.symbol, window.stream.interval, window.digits, is_closed
                    )
                },
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
        "n": whole(row["count"]),
        "x": is_closed,
        "q": number(row["quote_volume"], digits.quote),
        "V": number(row["taker_buy_volume"], digits.quantity),
        "Q": number(row["taker_buy_quote_volume"], digits.quote),
        "B": "0",
    }


def _books(window: _Window) -> Iterator[tuple[Book, Book]]:
    """Yield each new book of the interval with the one it replaces."""
    before: Book | None = None
    for time in window.source.book_times(
        window.stream.kind, window.symbol, window.start, window.end
    ).tolist():
        before = before or window.source.book(window.stream.kind, window.symbol, time - 1)
        book = window.source.book(window.stream.kind, window.symbol, time)
        if before is not None and book is not None:
            yield before, book
        before = book


def _depth(window: _Window) -> Iterator[Message]:
    for before, book in _books(window):
        bids, asks = levels(book, window.digits, window.stream.levels or len(book.bid_prices))
        if window.stream.levels and window.stream.kind == "spot":
            yield book.time, {"lastUpdateId": book.update_id, "bids": bids, "asks": asks}
            continue
        if not window.stream.levels:
            old_bids, old_asks = levels(before, window.digits, len(before.bid_prices))
            bids, asks = _changes(old_bids, bids), _changes(old_asks, asks)
        head = _head("depthUpdate", book.time, window.symbol)
        ids = {"U": before.update_id + 1, "u": book.update_id}
        if window.stream.kind == "um":
            head |= {"T": book.time // 1000}
            ids |= {"pu": before.update_id}
        yield book.time, head | ids | {"b": bids, "a": asks}


def _changes(old: list[list[str]], new: list[list[str]]) -> list[list[str]]:
    """Return the levels that differ; one that is gone has quantity zero."""
    changed = [level for level in new if level not in old]
    kept = {price for price, _ in new}
    gone = [[price, f"{0:.{_digits(quantity)}f}"] for price, quantity in old if price not in kept]
    return changed + gone


def _digits(text: str) -> int:
    return len(text.partition(".")[2])


def _book_tickers(window: _Window) -> Iterator[Message]:
    for before, book in _books(window):
        best = levels(book, window.digits, 1)
        if best == levels(before, window.digits, 1):
            continue
        (bid,), (ask,) = best
        values = {
            "u": book.update_id,
            "s": window.symbol,
            "b": bid[0],
            "B": bid[1],
            "a": ask[0],
            "A": ask[1],
        }
        if window.stream.kind == "um":
            time = book.time // 1000
            values = {"e": "bookTicker"} | values | {"T": time, "E": time}
        yield book.time, values


def _mark_prices(window: _Window) -> Iterator[Message]:
    for time in range(
        -(-window.start // window.stream.pace) * window.stream.pace, window.end, window.stream.pace
    ):
        mark, index = window.source.premium(window.symbol, time)
        rates = last_rows(
            window.source,
            lambda first, last: window.source.funding(window.symbol, first, last),
            time,
            1,
        )["last_funding_rate"]
        yield (
            time,
            _head("markPriceUpdate", time, window.symbol)
            | {
                "p": number(mark, 8),
                "P": number(index, 8),
                "i": number(index, 8),
                "r": number(float(rates[-1]), 8) if len(rates) else "0.00000000",
                "T": (time // (8 * HOUR) + 1) * 8 * HOUR // 1000,
            },
        )


def _forced_orders(window: _Window) -> Iterator[Message]:
    for row in records(window.source.liquidations(window.symbol, window.start, window.end)):
        order = {
            "s": window.symbol,
            "S": row["side"],
            "o": row["order_type"],
            "f": row["time_in_force"],
            "q": shortest(row["original_quantity"]),
            "p": shortest(row["price"]),
            "ap": shortest(row["average_price"]),
            "X": row["order_status"],
            "l": shortest(row["last_fill_quantity"]),
            "z": shortest(row["accumulated_fill_quantity"]),
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
