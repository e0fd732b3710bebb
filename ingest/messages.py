"""WebSocket messages of the exchange as rows of the kinds."""

import json
import re
from collections.abc import Iterable
from typing import Any

import pyarrow as pa

from ingest.kinds import KindName

STREAM_KINDS: tuple[KindName, ...] = ("klines", "trades", "books", "liquidations", "mark_prices")
_PARTIAL_DEPTH = re.compile(r"@depth(5|10|20)(@|$)")
Row = dict[str, Any]


def rows(lines: Iterable[bytes]) -> dict[KindName, pa.Table]:
    """Parse a segment's lines, each ``{"received_at", "stream", "data"}``.

    Parameters
    ----------
    lines : iterable of bytes
        ``received_at`` is epoch microseconds; ``stream`` names the stream, ``data`` is the
        exchange's message as it came.

    Returns
    -------
    dict of str to pyarrow.Table
        Rows by kind; messages of other kinds, and changes of books, are left out.
    """
    found: dict[KindName, list[Row]] = {}
    for line in lines:
        message = json.loads(line)
        data = message["data"]
        parsed = parse(message["stream"], data) if isinstance(data, dict) else None
        if parsed:
            kind, row = parsed
            row["received_at"] = message["received_at"]
            found.setdefault(kind, []).append(row)
    return {kind: pa.Table.from_pylist(some) for kind, some in found.items()}


def parse(stream: str, data: Row) -> tuple[KindName, Row] | None:
    """Return the kind and the columns of one message; None if it is of no kind that lands.

    A partial book (``depth20``) and a change of a book (``depth``) look the same: only the
    stream's name tells them apart.
    """
    event = data.get("e")
    if event == "kline":
        return "klines", _kline(data)
    if event in ("aggTrade", "trade"):
        return "trades", _trade(data, is_aggregate=event == "aggTrade")
    if event == "forceOrder":
        return "liquidations", _liquidation(data["o"])
    if event == "markPriceUpdate":
        return "mark_prices", _mark_price(data)
    if _PARTIAL_DEPTH.search(stream) and (event == "depthUpdate" or "lastUpdateId" in data):
        return "books", _book(stream, data)
    return None


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
