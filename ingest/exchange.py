"""The exchange's REST interface through ccxt: raw payloads, page by page."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import ccxt
import pyarrow as pa
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception_type,
    stop_after_attempt,
    wait_random_exponential,
)

from ingest.batches import Series
from ingest.intervals import INTERVALS_US
from ingest.kinds import KINDS
from ingest.settings import Market, Settings

ATTEMPTS = 6
# A trade may be published a little after its own time.
SETTLING = timedelta(seconds=1)
_BACK_OFF = wait_random_exponential(multiplier=0.2, max=20)
_KLINE_LIMITS = {"spot": 1000, "um": 1500}
# The page of candles that weighs the least for a row in the exchange's limit of requests.
_LIGHT_LIMIT = 499
_HOUR_MS = 3_600_000
# Places in a candle of the REST interface.
_CLOSE = 4
_CLOSE_TIME = 6
_OPEN_INTEREST_PERIOD_MS = 300_000


@dataclass(frozen=True)
class Page:
    """An answer's rows, and the time ``[covered_from, covered_until)`` it leaves nothing of."""

    table: pa.Table
    covered_from: datetime
    covered_until: datetime


class Exchange:
    """REST client of one market; its requests are spaced by ccxt and repeated when they fail."""

    def __init__(self, settings: Settings, market: Market, *, attempts: int = ATTEMPTS) -> None:
        self.market = market
        self._attempts = attempts
        self.client = ccxt.binance() if market == "spot" else ccxt.binanceusdm()
        self.client.urls["api"].update(rest_urls(settings))

    def call(self, method: str, **parameters: object) -> Any:
        """Call one of ccxt's implicit methods and return the exchange's answer as it is.

        Raises
        ------
        ccxt.NetworkError
            If the exchange could not be reached or kept refusing, after several attempts.
        ccxt.ExchangeError
            If the exchange rejects the request itself.
        """
        attempts = Retrying(
            retry=retry_if_exception_type(ccxt.NetworkError),
            wait=self._wait,
            stop=stop_after_attempt(self._attempts),
            reraise=True,
        )
        return attempts(getattr(self.client, method), parameters)

    def now(self) -> datetime:
        """Return the exchange's own time, in UTC."""
        method = "publicGetTime" if self.market == "spot" else "fapiPublicGetTime"
        return instant(int(self.call(method)["serverTime"]))

    def asked_pause_s(self) -> float:
        """Return for how many seconds the exchange asked to be left alone in its last answer.

        A date, as a proxy may give, counts as none.
        """
        headers = self.client.last_response_headers or {}
        asked = {name.lower(): value for name, value in headers.items()}.get("retry-after", "")
        return float(asked) if asked.isdigit() else 0.0

    def _wait(self, state: RetryCallState) -> float:
        return max(self.asked_pause_s(), _BACK_OFF(state))


def rest_urls(settings: Settings) -> dict[str, str]:
    """Return the addresses that replace ccxt's own; none for the real exchange."""
    base = settings.exchange_url
    if base is None:
        return {}
    return {
        "public": f"{base}/api/v3",
        "v1": f"{base}/api/v1",
        "fapiPublic": f"{base}/fapi/v1",
        "fapiPublicV2": f"{base}/fapi/v2",
        "fapiPublicV3": f"{base}/fapi/v3",
        "fapiData": f"{base}/futures/data",
        "dapiPublic": f"{base}/dapi/v1",
    }


def instant(milliseconds: int) -> datetime:
    """Return epoch milliseconds as a UTC time."""
    return datetime.fromtimestamp(milliseconds // 1000, UTC) + timedelta(
        milliseconds=milliseconds % 1000
    )


def milliseconds(time: datetime) -> int:
    """Return a time as epoch milliseconds, rounded down."""
    return (time - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)


def pages(exchange: Exchange, series: Series, start: datetime, end: datetime) -> Iterator[Page]:
    """Yield what the exchange has of a series in ``[start, end)``, oldest first.

    Candles that have not closed by the exchange's time, and trades of its last second, are left
    for later.
    """
    now = exchange.now()
    if series.kind == "klines":
        yield from _klines(exchange, series, start, end, now)
    elif series.kind == "trades":
        yield from _trades(exchange, series, start, min(end, now - SETTLING))
    elif series.kind == "funding":
        yield from _funding(exchange, series, start, end, now)
    elif series.kind == "open_interest":
        yield from _open_interest(exchange, series, start, end, now)
    elif series.kind == "mark_prices":
        yield from _mark_prices(exchange, series, start, end, now)
    elif series.kind == "books":
        yield _book(exchange, series, now)
    else:
        raise ValueError(f"the exchange gives no {series.kind} over REST")


def _klines(
    exchange: Exchange, series: Series, start: datetime, end: datetime, now: datetime
) -> Iterator[Page]:
    if series.interval is None:
        raise ValueError("klines need an interval")
    step = INTERVALS_US[series.interval] // 1000
    limit = _KLINE_LIMITS[exchange.market]
    method = "publicGetKlines" if exchange.market == "spot" else "fapiPublicGetKlines"
    cursor = -(-milliseconds(start) // step) * step
    last = min(milliseconds(end), milliseconds(now) // step * step)
    names = KINDS["klines"].headerless[0]
    while cursor < last:
        until = min(cursor + limit * step, last)
        rows = exchange.call(
            method,
            symbol=series.symbol,
            interval=series.interval,
            startTime=cursor,
            endTime=until - 1,
            limit=limit,
        )
        yield Page(_rows(names, rows), instant(cursor), instant(until))
        cursor = until


def _trades(exchange: Exchange, series: Series, start: datetime, end: datetime) -> Iterator[Page]:
    method = "publicGetAggTrades" if exchange.market == "spot" else "fapiPublicGetAggTrades"
    names = {
        "a": "agg_trade_id",
        "p": "price",
        "q": "quantity",
        "f": "first_trade_id",
        "l": "last_trade_id",
        "T": "transact_time",
        "m": "is_buyer_maker",
        "M": "is_best_match",
    }
    limit = 1000
    cursor, last = milliseconds(start), milliseconds(end)
    next_id: int | None = None
    while cursor < last:
        until = min(cursor + _HOUR_MS, last)
        if next_id is None:
            window = {"startTime": cursor, "endTime": until - 1}
        else:
            window, until = {"fromId": next_id}, last
        found = exchange.call(method, symbol=series.symbol, limit=limit, **window)
        if len(found) == limit:
            next_id = int(found[-1]["a"]) + 1
            until = min(int(found[-1]["T"]), last)
        kept = [trade for trade in found if int(trade["T"]) < last]
        yield Page(_records(names, kept), instant(cursor), instant(until))
        cursor = until
        if len(found) == limit and int(found[-1]["T"]) >= last:
            break


def _funding(
    exchange: Exchange, series: Series, start: datetime, end: datetime, now: datetime
) -> Iterator[Page]:
    names = {
        "fundingTime": "funding_time",
        "fundingRate": "funding_rate",
        "markPrice": "mark_price",
    }
    limit = 1000
    cursor, last = milliseconds(start), milliseconds(end)
    while cursor < last:
        found = exchange.call(
            "fapiPublicGetFundingRate",
            symbol=series.symbol,
            startTime=cursor,
            endTime=last - 1,
            limit=limit,
        )
        times = [int(row["fundingTime"]) for row in found]
        until = _settled(times, last, now, is_full=len(found) == limit)
        if until is None:
            break
        yield Page(_records(names, found), instant(cursor), instant(until))
        cursor = until
        if len(found) < limit:
            break


def _open_interest(
    exchange: Exchange, series: Series, start: datetime, end: datetime, now: datetime
) -> Iterator[Page]:
    names = {
        "timestamp": "create_time",
        "sumOpenInterest": "sum_open_interest",
        "sumOpenInterestValue": "sum_open_interest_value",
    }
    limit = 500
    cursor, last = milliseconds(start), milliseconds(end)
    while cursor < last:
        window_end = min(cursor + limit * _OPEN_INTEREST_PERIOD_MS, last)
        found = exchange.call(
            "fapiDataGetOpenInterestHist",
            symbol=series.symbol,
            period="5m",
            startTime=cursor,
            endTime=window_end - 1,
            limit=limit,
        )
        times = [int(row["timestamp"]) for row in found]
        until = _settled(times, window_end, now, is_full=False)
        if until is None:
            break
        yield Page(_records(names, found), instant(cursor), instant(until))
        if until < window_end:
            break
        cursor = until


def _mark_prices(
    exchange: Exchange, series: Series, start: datetime, end: datetime, now: datetime
) -> Iterator[Page]:
    step = INTERVALS_US["1m"] // 1000
    limit = _LIGHT_LIMIT
    cursor = -(-milliseconds(start) // step) * step
    last = min(milliseconds(end), milliseconds(now)) // step * step
    while cursor < last:
        until = min(cursor + limit * step, last)
        window = {"interval": "1m", "startTime": cursor, "endTime": until - 1, "limit": limit}
        marks = exchange.call("fapiPublicGetMarkPriceKlines", symbol=series.symbol, **window)
        indices = exchange.call("fapiPublicGetIndexPriceKlines", pair=series.symbol, **window)
        index_closes = {row[_CLOSE_TIME]: row[_CLOSE] for row in indices}
        rows = [
            {
                "event_time": row[_CLOSE_TIME],
                "mark_price": row[_CLOSE],
                "index_price": index_closes.get(row[_CLOSE_TIME]),
            }
            for row in marks
        ]
        names = ("event_time", "mark_price", "index_price")
        yield Page(_records({name: name for name in names}, rows), instant(cursor), instant(until))
        cursor = until


def _book(exchange: Exchange, series: Series, now: datetime) -> Page:
    method = "publicGetDepth" if exchange.market == "spot" else "fapiPublicGetDepth"
    book = exchange.call(method, symbol=series.symbol, limit=20)
    sides = {
        f"{side}_{name}": [[float(level[position]) for level in book[f"{side}s"]]]
        for side in ("bid", "ask")
        for position, name in enumerate(("prices", "quantities"))
    }
    times = {"event_time": [book.get("E")], "transact_time": [book.get("T")]}
    table = pa.table(
        {"last_update_id": [book["lastUpdateId"]]}
        | {name: pa.array(values, pa.int64()) for name, values in times.items()}
        | sides
        | {"received_at": [milliseconds(now)]}
    )
    return Page(table, now, now)


def _settled(times: list[int], last: int, now: datetime, *, is_full: bool) -> int | None:
    """Return the time up to which an answer is final, None if it says nothing."""
    if is_full or last >= milliseconds(now - timedelta(hours=1)):
        return max(times) + 1 if times else None
    return last


def _rows(names: tuple[str, ...], rows: list[list[Any]]) -> pa.Table:
    return pa.table(
        {
            name: pa.array([_text(row[index]) for row in rows], pa.string())
            for index, name in enumerate(names)
        }
    )


def _records(names: dict[str, str], rows: list[dict[str, Any]]) -> pa.Table:
    return pa.table(
        {
            name: pa.array([_text(row.get(field)) for row in rows], pa.string())
            for field, name in names.items()
        }
    )


def _text(value: object) -> str | None:
    return None if value is None else str(value)
