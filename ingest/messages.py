"""What a log's frames say, as rows of the kinds: the only parser, for landing and for serving."""

import re
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import orjson
import pyarrow as pa

from ingest.kind import KindName
from ingest.segments import Frame

STREAM_KINDS: tuple[KindName, ...] = (
    "klines", "trades", "books", "liquidations", "mark_prices", "open_interest", "book_gaps",
)  # fmt: skip
# What the recorder itself has to say.
RECORDER = "!recorder"
_PARTIAL_DEPTH = re.compile(r"@depth(5|10|20)(@|$)")
# What parsing raises where a message is not what it should be.
NO_MESSAGE = (KeyError, IndexError, TypeError, ValueError, AttributeError)
Row = dict[str, Any]


class Parsed(NamedTuple):
    """Rows by kind, each with ``received_at``, and the frames that could not be read, with why."""

    tables: dict[KindName, pa.Table]
    bad: list[tuple[Frame, str]]


def rows(frames: Iterable[Frame]) -> Parsed:
    """Parse the frames of a recorder's log.

    Frames of other kinds, changes of books, and candles that have not closed are left out.
    """
    found: dict[KindName, list[Row]] = {}
    bad: list[tuple[Frame, str]] = []
    for frame in frames:
        try:
            parsed = list(parse(frame.stream, message(frame)))
        except NO_MESSAGE as error:
            bad.append((frame, f"cannot be read: {type(error).__name__}: {error}"))
            continue
        for kind, row in parsed:
            if kind == "klines" and row["is_closed"] is False:
                continue
            row["received_at"] = frame.received_at
            found.setdefault(kind, []).append(row)
    return Parsed({kind: _table(some) for kind, some in found.items()}, bad)


def message(frame: Frame) -> Any:
    """Return what a frame's payload holds, without the envelope of combined streams.

    Raises
    ------
    ValueError
        If it is no JSON.
    """
    payload = orjson.loads(frame.payload)
    if isinstance(payload, dict) and "data" in payload and "stream" in payload:
        return payload["data"]
    return payload


def parse(stream: str, data: Any) -> Iterator[tuple[KindName, Row]]:
    """Yield the kind and the columns of each row of one message; none if none land.

    A partial book (``depth20``) and a change of a book (``depth``) look the same: only the
    stream's name tells them apart.

    Raises
    ------
    KeyError, IndexError, TypeError, ValueError, AttributeError
        If the message is not what its stream and its name for itself promise.
    """
    if stream.startswith("rest:"):
        yield from _answer(stream, data)
    elif stream == RECORDER:
        if data["event"] == "gap":
            yield "book_gaps", {name: data[name] for name in _GAP_COLUMNS}
    elif isinstance(data, list):
        for part in data:
            yield from parse(stream, part)
    else:
        yield from _event(stream, data)


_GAP_COLUMNS = ("symbol", "cause", "gap_from", "gap_until")


def _event(stream: str, data: Row) -> Iterator[tuple[KindName, Row]]:
    event = data.get("e")
    if event == "kline":
        yield "klines", _kline(data)
    elif event in ("aggTrade", "trade"):
        yield "trades", _trade(data, is_aggregate=event == "aggTrade")
    elif event == "forceOrder":
        yield "liquidations", _liquidation(data["o"])
    elif event == "markPriceUpdate":
        yield "mark_prices", _mark_price(data)
    elif _PARTIAL_DEPTH.search(stream) and (event == "depthUpdate" or "lastUpdateId" in data):
        yield "books", _book(stream, data)


def _answer(stream: str, data: Any) -> Iterator[tuple[KindName, Row]]:
    """Read an answer of the REST interface; ``stream`` is ``rest:<kind>:<symbol>[:<interval>]``."""
    _, kind, symbol, *interval = stream.split(":")
    if kind == "klines":
        for candle in data:
            row: Row = {"symbol": symbol, "interval": interval[0]}
            row |= {name: candle[place] for place, name in enumerate(_CANDLE)}
            yield "klines", row | {"is_closed": True}
    elif kind == "open_interest":
        for point in data:
            yield (
                "open_interest",
                {
                    "symbol": symbol,
                    "create_time": point["timestamp"],
                    "sum_open_interest": point["sumOpenInterest"],
                    "sum_open_interest_value": point.get("sumOpenInterestValue"),
                },
            )


_CANDLE = (
    "open_time", "open", "high", "low", "close", "volume", "close_time", "quote_volume", "count",
    "taker_buy_volume", "taker_buy_quote_volume",
)  # fmt: skip


def _table(some: list[Row]) -> pa.Table:
    columns = {name: [row[name] for row in some] for name in some[0]}
    return pa.table({name: _column(values) for name, values in columns.items()})


def _column(values: list[Any]) -> pa.Array:
    try:
        return pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
        # One message wrote a number as text, or a text as a number: each is judged by itself.
        return pa.array([None if value is None else str(value) for value in values])


def _kline(data: Row) -> Row:
    candle = data["k"]
    return {
        "symbol": data["s"],
        "interval": candle["i"],
        "open_time": candle["t"],
        "open": candle["o"],
        "high": candle["h"],
        "low": candle["l"],
        "close": candle["c"],
        "volume": candle["v"],
        "close_time": candle["T"],
        "quote_volume": candle["q"],
        "count": candle["n"],
        "taker_buy_volume": candle["V"],
        "taker_buy_quote_volume": candle["Q"],
        "is_closed": candle["x"],
    }


def _trade(data: Row, *, is_aggregate: bool) -> Row:
    return {
        "symbol": data["s"],
        "is_aggregate": is_aggregate,
        "trade_id": data["a" if is_aggregate else "t"],
        "price": data["p"],
        "quantity": data["q"],
        "first_trade_id": data.get("f"),
        "last_trade_id": data.get("l"),
        "transact_time": data["T"],
        "is_buyer_maker": data["m"],
        "is_best_match": data.get("M"),
    }


def _liquidation(order: Row) -> Row:
    return {
        "symbol": order["s"],
        "side": order["S"],
        "order_type": order["o"],
        "time_in_force": order["f"],
        "original_quantity": order["q"],
        "price": order["p"],
        "average_price": order.get("ap"),
        "order_status": order["X"],
        "last_filled_quantity": order["l"],
        "filled_accumulated_quantity": order["z"],
        "trade_time": order["T"],
    }


def _mark_price(data: Row) -> Row:
    return {
        "symbol": data["s"],
        "event_time": data["E"],
        "mark_price": data["p"],
        "index_price": data.get("i"),
        "estimated_settle_price": data.get("P"),
        "funding_rate": data.get("r") or None,
        "next_funding_time": data.get("T") or None,
    }


def _book(stream: str, data: Row) -> Row:
    bids = data["b"] if "b" in data else data["bids"]
    asks = data["a"] if "a" in data else data["asks"]
    return {
        "symbol": data.get("s") or stream.split("@")[0].upper(),
        "last_update_id": data["u"] if "u" in data else data["lastUpdateId"],
        "event_time": data.get("E"),
        "transact_time": data.get("T"),
        "bid_prices": [float(level[0]) for level in bids],
        "bid_quantities": [float(level[1]) for level in bids],
        "ask_prices": [float(level[0]) for level in asks],
        "ask_quantities": [float(level[1]) for level in asks],
    }
