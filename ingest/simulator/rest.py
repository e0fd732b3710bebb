"""The REST interface of spot and USD-M futures."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
from aiohttp import web

from ingest.simulator.exchange import EXCHANGE, Exchange, first_rows, last_rows
from ingest.simulator.formats import Decimals, decimals, kline_row, levels, number, records
from ingest.simulator.listing import exchange_information
from ingest.simulator.source import HOUR, INTERVALS, MINUTE, Columns, microseconds

_BASES = {
    "/api/v1": "spot",
    "/api/v3": "spot",
    "/fapi/v1": "um",
    "/fapi/v2": "um",
    "/fapi/v3": "um",
}
_KLINE_LIMITS = {"spot": 1000, "um": 1500}
_PERIODS = ("5m", "15m", "30m", "1h", "2h", "4h", "6h", "12h", "1d")


class RefusedError(Exception):
    """A request that the exchange answers with an error code."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class Query:
    """The parameters of a request."""

    def __init__(self, exchange: Exchange, kind: str, values: Any) -> None:
        self.exchange = exchange
        self.kind = kind
        self._values = values

    def text(self, name: str) -> str:
        """Return a mandatory parameter."""
        if not self._values.get(name):
            raise RefusedError(-1102, f"Mandatory parameter '{name}' was not sent.")
        return str(self._values[name])

    def integer(self, name: str) -> int | None:
        """Return an optional whole number."""
        value = self._values.get(name)
        if value is None:
            return None
        if not value.lstrip("-").isdigit():
            raise RefusedError(-1100, f"Illegal characters found in parameter '{name}'.")
        return int(value)

    def limit(self, default: int, largest: int) -> int:
        """Return the number of rows asked for."""
        value = self.integer("limit")
        if value is not None and value < 1:
            raise RefusedError(-1130, "Data sent for parameter 'limit' is not valid.")
        return min(value or default, largest)

    def symbol(self) -> str:
        """Return a symbol that is listed."""
        name = self.text("symbol")
        if name not in self.exchange.source.instruments(self.kind):
            raise RefusedError(-1121, "Invalid symbol.")
        return name

    def interval(self, name: str = "interval") -> str:
        """Return a candle interval."""
        value = self.text(name)
        if value not in INTERVALS:
            raise RefusedError(-1120, "Invalid interval.")
        return value

    def window(self) -> tuple[int | None, int]:
        """Return start and end in microseconds; the end is inclusive in the request."""
        start, end = self.integer("startTime"), self.integer("endTime")
        now = self.exchange.clock.now()
        return (
            None if start is None else start * 1000,
            now if end is None else min(now, (end + 1) * 1000),
        )

    def rows(self, fetch: Callable[[int, int], Columns], *, limit: int) -> list[dict[str, Any]]:
        """Return the first rows from ``startTime`` on, or the last ones before ``endTime``."""
        start, end = self.window()
        source = self.exchange.source
        if start is None:
            return records(last_rows(source, fetch, end, limit))
        return records(first_rows(fetch, max(start, microseconds(source.start)), end, limit))


def _klines(query: Query) -> Any:
    exchange, kind = query.exchange, query.kind
    symbol, interval = query.symbol(), query.interval()
    now = exchange.clock.now()

    def fetch(start: int, end: int) -> Columns:
        return exchange.source.klines(kind, symbol, interval, start, end, now=now)

    digits = decimals(kind, exchange.source.instruments(kind)[symbol])
    found = query.rows(fetch, limit=query.limit(500, _KLINE_LIMITS[kind]))
    return [kline_row(row, digits) for row in found]


def _aggregate_trades(query: Query) -> Any:
    exchange, kind = query.exchange, query.kind
    symbol, limit = query.symbol(), query.limit(500, 1000)
    digits = decimals(kind, exchange.source.instruments(kind)[symbol])

    def fetch(start: int, end: int) -> Columns:
        return exchange.source.aggregate_trades(kind, symbol, start, end)

    from_id = query.integer("fromId")
    if from_id is not None:
        found = _from_id(query, symbol, fetch, from_id, limit, aggregate=True)
    else:
        found = query.rows(fetch, limit=limit)
    best_match = {"M": True} if kind == "spot" else {}
    return [
        {
            "a": row["agg_trade_id"],
            "p": number(row["price"], digits.price),
            "q": number(row["quantity"], digits.quantity),
            "f": row["first_trade_id"],
            "l": row["last_trade_id"],
            "T": row["transact_time"] // 1000,
            "m": row["is_buyer_maker"],
        }
        | best_match
        for row in found
    ]


def _trades(query: Query) -> Any:
    exchange, kind = query.exchange, query.kind
    symbol, limit = query.symbol(), query.limit(500, 1000)
    digits = decimals(kind, exchange.source.instruments(kind)[symbol])

    def fetch(start: int, end: int) -> Columns:
        return exchange.source.trades(kind, symbol, start, end)

    from_id = query.integer("fromId")
    if from_id is not None:
        found = _from_id(query, symbol, fetch, from_id, limit, aggregate=False)
    else:
        found = records(last_rows(exchange.source, fetch, exchange.clock.now(), limit))
    best_match = {"isBestMatch": True} if kind == "spot" else {}
    return [
        {
            "id": row["id"],
            "price": number(row["price"], digits.price),
            "qty": number(row["qty"], digits.quantity),
            "quoteQty": number(row["quote_qty"], digits.quote),
            "time": row["time"] // 1000,
            "isBuyerMaker": row["is_buyer_maker"],
        }
        | best_match
        for row in found
    ]


def _from_id(
    query: Query,
    symbol: str,
    fetch: Callable[[int, int], Columns],
    from_id: int,
    limit: int,
    *,
    aggregate: bool,
) -> list[dict[str, Any]]:
    exchange = query.exchange
    now = exchange.clock.now()
    start = exchange.source.time_of_trade(query.kind, symbol, from_id, aggregate=aggregate, now=now)
    if start >= now:
        return []
    name = "agg_trade_id" if aggregate else "id"
    rows = records(first_rows(fetch, start, now, limit + 1))
    return [row for row in rows if row[name] >= from_id][:limit]


def _depth(query: Query) -> Any:
    exchange, kind = query.exchange, query.kind
    symbol, limit = query.symbol(), query.limit(100 if kind == "spot" else 500, 5000)
    now = exchange.clock.now()
    book = exchange.source.book(kind, symbol, now)
    if book is None:
        raise RefusedError(-1121, f"No book of {symbol} was recorded before this time.")
    digits = decimals(kind, exchange.source.instruments(kind)[symbol])
    bids, asks = levels(book, digits, limit)
    times = {"E": now // 1000, "T": book.time // 1000} if kind == "um" else {}
    return {"lastUpdateId": book.update_id} | times | {"bids": bids, "asks": asks}


def _book_ticker(query: Query) -> Any:
    symbol = query.symbol()
    book = _depth(query)
    (bid, bid_quantity), (ask, ask_quantity) = book["bids"][0], book["asks"][0]
    time = {"time": book["T"]} if query.kind == "um" else {}
    return {
        "symbol": symbol,
        "bidPrice": bid,
        "bidQty": bid_quantity,
        "askPrice": ask,
        "askQty": ask_quantity,
    } | time


def _funding_rate(query: Query) -> Any:
    exchange = query.exchange
    symbol, limit = query.symbol(), query.limit(100, 1000)
    found = query.rows(lambda start, end: exchange.source.funding(symbol, start, end), limit=limit)
    return [
        {
            "symbol": symbol,
            "fundingTime": row["calc_time"] // 1000,
            "fundingRate": number(row["last_funding_rate"], 8),
            "markPrice": number(row["mark_price"], 8) or "",
        }
        for row in found
    ]


def _premium_index(query: Query) -> Any:
    exchange = query.exchange
    symbol = query.symbol()
    now = exchange.clock.now()
    mark, index = exchange.source.premium(symbol, now)
    rates = last_rows(
        exchange.source, lambda start, end: exchange.source.funding(symbol, start, end), now, 1
    )["last_funding_rate"]
    return {
        "symbol": symbol,
        "markPrice": number(mark, 8),
        "indexPrice": number(index, 8),
        "estimatedSettlePrice": number(index, 8),
        "lastFundingRate": number(float(rates[-1]), 8) if len(rates) else "0.00000000",
        "interestRate": "0.00010000",
        "nextFundingTime": (now // (8 * HOUR) + 1) * 8 * HOUR // 1000,
        "time": now // 1000,
    }


def _mark_price_klines(query: Query) -> Any:
    return _premium_klines(query, query.symbol(), part=0)


def _index_price_klines(query: Query) -> Any:
    return _premium_klines(query, query.text("pair"), part=1)


def _premium_klines(query: Query, symbol: str, *, part: int) -> Any:
    """Answer candles of the mark (part 0) or index price (1), which change every minute."""
    source, now = query.exchange.source, query.exchange.clock.now()
    width, digits = INTERVALS[query.interval()], Decimals(8, 0, 0)

    def fetch(start: int, end: int) -> Columns:
        opened = np.arange(-(-start // width) * width, end, width)
        minutes = (opened[:, None] + np.arange(0, width, MINUTE)).ravel().tolist()
        prices = np.array(
            [source.premium(symbol, min(minute, now))[part] for minute in minutes], float
        ).reshape(len(opened), width // MINUTE)
        nothing = np.zeros(len(opened))
        return {
            "open_time": opened,
            "open": prices[:, 0],
            "high": prices.max(axis=1),
            "low": prices.min(axis=1),
            "close": prices[:, -1],
            "close_time": opened + width - 1000,
            "count": nothing + width // MINUTE,
        } | dict.fromkeys(
            ("volume", "quote_volume", "taker_buy_volume", "taker_buy_quote_volume"), nothing
        )

    found = query.rows(fetch, limit=query.limit(500, _KLINE_LIMITS["um"]))
    return [kline_row(row, digits) for row in found if not math.isnan(row["close"])]


def _open_interest(query: Query) -> Any:
    exchange, kind = query.exchange, query.kind
    symbol = query.symbol()
    now = exchange.clock.now()
    columns = last_rows(
        exchange.source,
        lambda start, end: exchange.source.open_interest(symbol, start, end),
        now,
        1,
    )
    digits = exchange.source.instruments(kind)[symbol].quantity_decimals
    values = columns["sum_open_interest"]
    if not len(values):
        raise RefusedError(-1121, f"No open interest of {symbol} was recorded before this time.")
    return {
        "openInterest": number(float(values[-1]), digits),
        "symbol": symbol,
        "time": now // 1000,
    }


def _open_interest_history(query: Query) -> Any:
    exchange = query.exchange
    symbol, limit = query.symbol(), query.limit(30, 500)
    period = query.interval("period")
    if period not in _PERIODS:
        raise RefusedError(-1130, "Data sent for parameter 'period' is not valid.")
    width = INTERVALS[period]

    def fetch(start: int, end: int) -> Columns:
        columns = exchange.source.open_interest(symbol, start, end)
        kept = columns["create_time"] % width < 5 * MINUTE
        return {name: values[kept] for name, values in columns.items()}

    return [
        {
            "symbol": symbol,
            "sumOpenInterest": number(row["sum_open_interest"], 8),
            "sumOpenInterestValue": number(row["sum_open_interest_value"], 8),
            "timestamp": row["create_time"] // 1000,
        }
        for row in query.rows(fetch, limit=limit)
    ]


def _server_time(query: Query) -> Any:
    jump = int(query.exchange.faults.clock_jump_s * 1000)
    return {"serverTime": query.exchange.clock.now() // 1000 + jump}


def _ping(_query: Query) -> Any:
    return {}


def _information(query: Query) -> Any:
    exchange, kind = query.exchange, query.kind
    return exchange_information(
        kind, exchange.source.instruments(kind), exchange.clock.now() // 1000
    )


Answer = Callable[[Query], Any]
_ANSWERS: dict[str, Answer] = {
    "ping": _ping,
    "time": _server_time,
    "exchangeInfo": _information,
    "klines": _klines,
    "aggTrades": _aggregate_trades,
    "trades": _trades,
    "historicalTrades": _trades,
    "depth": _depth,
    "ticker/bookTicker": _book_ticker,
}
_FUTURES_ANSWERS: dict[str, Answer] = {
    "fundingRate": _funding_rate,
    "premiumIndex": _premium_index,
    "markPriceKlines": _mark_price_klines,
    "indexPriceKlines": _index_price_klines,
    "openInterest": _open_interest,
}


def _handler(kind: str, answer: Answer) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def handle(request: web.Request) -> web.Response:
        exchange = request.app[EXCHANGE]
        try:
            return web.json_response(answer(Query(exchange, kind, request.query)))
        except RefusedError as refusal:
            return web.json_response({"code": refusal.code, "msg": str(refusal)}, status=400)

    return handle


async def _no_inverse_contracts(request: web.Request) -> web.Response:
    now = request.app[EXCHANGE].clock.now()
    return web.json_response(exchange_information("cm", {}, now // 1000))


def routes() -> list[web.RouteDef]:
    """Serve spot under ``/api``, USD-M under ``/fapi`` and an empty coin-margined listing."""
    served = [web.get("/dapi/v1/exchangeInfo", _no_inverse_contracts)]
    for base, kind in _BASES.items():
        answers = _ANSWERS | (_FUTURES_ANSWERS if kind == "um" else {})
        served += [
            web.get(f"{base}/{name}", _handler(kind, answer)) for name, answer in answers.items()
        ]
    history = _handler("um", _open_interest_history)
    return [*served, web.get("/futures/data/openInterestHist", history)]
