"""What a market source answers, whether synthetic or recorded, and the time units it uses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ingest.simulator.instruments import Instrument

Array = NDArray[Any]
Columns = dict[str, Array]

SECOND = 1_000_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR

INTERVALS: Mapping[str, int] = MappingProxyType(
    {
        "1m": MINUTE,
        "3m": 3 * MINUTE,
        "5m": 5 * MINUTE,
        "15m": 15 * MINUTE,
        "30m": 30 * MINUTE,
        "1h": HOUR,
        "2h": 2 * HOUR,
        "4h": 4 * HOUR,
        "6h": 6 * HOUR,
        "8h": 8 * HOUR,
        "12h": 12 * HOUR,
        "1d": DAY,
    }
)


@dataclass(frozen=True)
class Book:
    """A book at one instant: prices and quantities from the best level outwards."""

    update_id: int
    time: int
    bid_prices: Array
    bid_quantities: Array
    ask_prices: Array
    ask_quantities: Array


class Source(Protocol):
    """A market to serve.

    Times are microseconds since the epoch, intervals ``[start, end)``, columns have the names of
    the public archives and equal lengths. Nothing is filtered by the clock: the server asks only
    for what has happened, except that ``klines`` needs ``now`` to cut the running candle.
    """

    @property
    def start(self) -> datetime:
        """First instant of the history."""
        ...

    @property
    def end(self) -> datetime:
        """End of the history, where the clock starts by default."""
        ...

    @property
    def has_every_day(self) -> bool:
        """Whether nothing happened on a day without rows; it may as well not be recorded."""
        ...

    def instruments(self, kind: str) -> Mapping[str, Instrument]:
        """Return the symbols of a market by name."""
        ...

    def klines(
        self, kind: str, symbol: str, interval: str, start: int, end: int, *, now: int
    ) -> Columns:
        """Return candles that opened in the interval; the running one as it stands at ``now``."""
        ...

    def trades(self, kind: str, symbol: str, start: int, end: int) -> Columns:
        """Return single trades: id, price, qty, quote_qty, time, is_buyer_maker."""
        ...

    def aggregate_trades(self, kind: str, symbol: str, start: int, end: int) -> Columns:
        """Return aggregate trades."""
        ...

    def time_of_trade(
        self, kind: str, symbol: str, trade_id: int, *, aggregate: bool, now: int
    ) -> int:
        """Return when a trade, or the next one that exists, happened; ``now`` if after it."""
        ...

    def book(self, kind: str, symbol: str, time: int) -> Book | None:
        """Return the book at an instant, None before the first."""
        ...

    def book_times(self, kind: str, symbol: str, start: int, end: int, /) -> Array:
        """Return when the book changed."""
        ...

    def funding(self, symbol: str, start: int, end: int) -> Columns:
        """Return calc_time, last_funding_rate and mark_price."""
        ...

    def open_interest(self, symbol: str, start: int, end: int) -> Columns:
        """Return create_time, sum_open_interest and sum_open_interest_value."""
        ...

    def premium(self, symbol: str, time: int, /) -> tuple[float, float]:
        """Return mark and index price at an instant."""
        ...

    def liquidations(self, symbol: str, start: int, end: int) -> Columns:
        """Return forced orders, with the columns of the liquidationSnapshot archive."""
        ...


def microseconds(instant: datetime) -> int:
    """Return microseconds since the epoch of an aware instant."""
    if instant.tzinfo is None:
        raise ValueError(f"expected an instant with a time zone, found {instant!r}; add tzinfo=UTC")
    return (instant - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def instant(time: int) -> datetime:
    """Return the UTC instant of microseconds since the epoch."""
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=time)


def between(columns: Columns, key: str, start: int, end: int) -> Columns:
    """Return the rows of ``[start, end)``; ``columns[key]`` must be sorted."""
    first, last = np.searchsorted(columns[key], [start, end])
    return {name: values[first:last] for name, values in columns.items()}


def concatenate(parts: list[Columns]) -> Columns:
    """Stack columns of the same names."""
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def length(columns: Columns) -> int:
    """Return the number of rows."""
    return len(next(iter(columns.values())))
