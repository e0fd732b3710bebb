"""A seeded synthetic market: the same arguments give the same market to the last digit."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from threading import RLock
from zlib import crc32

import numpy as np

from ingest.simulator import candles, paths
from ingest.simulator.books import VERSION, book_at
from ingest.simulator.instruments import DEFAULT_SYMBOLS, KINDS, Instrument, instrument
from ingest.simulator.source import (
    DAY,
    INTERVALS,
    MINUTE,
    Array,
    Book,
    Columns,
    between,
    concatenate,
    microseconds,
)

DEFAULT_START = datetime(2024, 12, 10, tzinfo=UTC)
_MEDIAN_NOTIONAL = 900.0
# A minute's move, in units of the symbol's usual volatility, that forces positions to be closed.
_LIQUIDATING_MOVE = 3.0


@dataclass(frozen=True)
class OrderDay:
    """The taker orders of a day: each trades at the best price of the book it leaves behind."""

    time: Array
    minute: Array
    bid_ticks: Array
    is_buy: Array
    lots: Array
    fills: Array


class Market:
    """A synthetic spot and USD-M market, addressed by symbol and UTC day.

    Parameters
    ----------
    seed : int
        Two markets of the same arguments are identical.
    symbols : sequence of str
        USDT pairs; the five of ``DEFAULT_SYMBOLS`` have realistic prices and decimals.
    start : datetime
        First instant, UTC midnight.
    days : int
        Length of the history; time may run past it.
    edge : float
        Strength of the planted edge, 0 (prices are a martingale) to 1 (strong).

    Raises
    ------
    ValueError
        If ``start`` is not a UTC midnight, or days or edge are out of range.
    """

    has_every_day = True

    def __init__(
        self,
        seed: int,
        symbols: Sequence[str] = DEFAULT_SYMBOLS,
        start: datetime = DEFAULT_START,
        days: int = 30,
        edge: float = 0.0,
    ) -> None:
        if microseconds(start) % DAY:
            raise ValueError(f"expected a start at midnight UTC, found {start.isoformat()}")
        if days < 1:
            raise ValueError(f"expected at least one day of history, found {days}")
        if not 0.0 <= edge <= 1.0:
            raise ValueError(f"expected an edge from 0 to 1, found {edge}")
        self.seed = seed
        self.edge = edge
        self.start = start
        self.end = start + timedelta(days=days)
        self._instruments = {
            kind: {symbol: instrument(kind, symbol) for symbol in symbols} for kind in KINDS
        }
        self._first_day = microseconds(start) // DAY
        self._common: list[paths.CommonDay] = []
        self._paths: dict[str, list[paths.SymbolDay]] = {symbol: [] for symbol in symbols}
        self._growing = RLock()
        self._orders = lru_cache(maxsize=64)(self._generate_orders)
        self._minutes = lru_cache(maxsize=256)(self._generate_minutes)
        self._aggregate_days = lru_cache(maxsize=32)(self._aggregate_day)
        self._trade_days = lru_cache(maxsize=32)(self._trade_day)
        self._liquidation_days = lru_cache(maxsize=32)(self._liquidation_day)

    def instruments(self, kind: str) -> Mapping[str, Instrument]:
        """Return the symbols of a market by name."""
        return self._instruments[kind]

    def path(self, symbol: str, day: int) -> paths.SymbolDay:
        """Return the hidden state of a symbol on a day since the epoch."""
        with self._growing:
            days = self._paths[symbol]
            while len(days) <= day - self._first_day:
                number = len(days)
                if len(self._common) <= number:
                    before = self._common[-1] if self._common else None
                    self._common.append(
                        paths.common_day(self.seed, self._first_day + number, before)
                    )
                days.append(
                    paths.symbol_day(
                        self.seed,
                        self._first_day + number,
                        self._common[number],
                        days[-1] if days else None,
                        self._instruments["um"][symbol],
                        edge=self.edge,
                    )
                )
            return days[day - self._first_day]

    def orders(self, kind: str, symbol: str, day: int) -> OrderDay:
        """Return the taker orders of a day since the epoch."""
        return self._orders(kind, symbol, day)

    def _generate_orders(self, kind: str, symbol: str, day: int) -> OrderDay:
        path = self.path(symbol, day)
        item = self._instruments[kind][symbol]
        generator = self._generator(kind, symbol, day, 0)
        counts = path.orders
        minute = np.repeat(np.arange(paths.MINUTES), counts)
        total = len(minute)
        time = day * DAY + (np.sort(minute + generator.random(total)) * MINUTE).astype(np.int64)

        shocks = generator.standard_normal(total)
        sums = np.cumsum(shocks)
        before = np.concatenate([[0.0], sums])[np.cumsum(counts) - counts]
        walk = sums - before[minute]
        place = np.arange(total) - (np.cumsum(counts) - counts)[minute] + 1.0
        share = place / counts[minute]
        totals = np.bincount(minute, weights=shocks, minlength=paths.MINUTES)
        bridge = (walk - share * totals[minute]) / np.sqrt(counts[minute])
        returns = np.diff(path.log_mid)
        log_mid = path.log_mid[minute] + share * returns[minute] + path.volatility[minute] * bridge
        bid_ticks = np.floor(np.exp(log_mid) * 10.0**item.price_decimals).astype(np.int64)

        lean = 0.6 * path.pressure[minute] + 0.3 * shocks
        is_buy = generator.random(total) < 1.0 / (1.0 + np.exp(-lean))
        fills = 1 + _chosen(generator, minute, path.trades - counts)
        notional = _MEDIAN_NOTIONAL * np.exp(1.2 * generator.standard_normal(total))
        lots = np.rint(notional * 10.0**item.quantity_decimals / np.exp(log_mid)).astype(np.int64)
        return OrderDay(time, minute, bid_ticks, is_buy, np.maximum(lots, fills), fills)

    def aggregate_trades(self, kind: str, symbol: str, start: int, end: int) -> Columns:
        """Return aggregate trades, one for each taker order."""
        return self._daily(self._aggregate_days, "transact_time", kind, symbol, start, end)

    def trades(self, kind: str, symbol: str, start: int, end: int) -> Columns:
        """Return single trades, one or two for each taker order."""
        return self._daily(self._trade_days, "time", kind, symbol, start, end)

    def klines(
        self, kind: str, symbol: str, interval: str, start: int, end: int, *, now: int
    ) -> Columns:
        """Return the candles that opened in the interval, the last one as it stands at ``now``."""
        width = INTERVALS[interval]
        first = -(-max(start, microseconds(self.start)) // width) * width
        last = min(-(-end // width) * width, -(-now // width) * width)
        minutes = [candles.EMPTY]
        for day in range(first // DAY, -(-min(last, now) // DAY)):
            closed = now >= (day + 1) * DAY
            minutes.append(
                self._minutes(kind, symbol, day)
                if closed
                else self._minutes_until(kind, symbol, day, now)
            )
        return candles.roll_up(between(concatenate(minutes), "open_time", first, last), width)

    def time_of_trade(
        self, kind: str, symbol: str, trade_id: int, *, aggregate: bool, now: int
    ) -> int:
        """Return when a trade happened, or ``now`` if after the current day."""
        name = "first_order" if aggregate else "first_trade"
        day = self._first_day
        while getattr(self.path(symbol, day + 1), name) <= trade_id and day < now // DAY:
            day += 1
        if aggregate:
            columns = self._aggregate_days(kind, symbol, day)
            ids, times = columns["agg_trade_id"], columns["transact_time"]
        else:
            columns = self._trade_days(kind, symbol, day)
            ids, times = columns["id"], columns["time"]
        place = int(np.searchsorted(ids, trade_id))
        return int(times[place]) if place < len(times) else now

    def quotes(self, kind: str, symbol: str, times: Array) -> tuple[Array, Array]:
        """Return the best bid in ticks and the minute's lean at instants of one day."""
        day = int(times[0]) // DAY
        path = self.path(symbol, day)
        item = self._instruments[kind][symbol]
        opening = int(np.floor(np.exp(path.log_mid[0]) * 10.0**item.price_decimals))
        orders = self.orders(kind, symbol, day)
        place = np.searchsorted(orders.time, times, side="right")
        bids = np.concatenate([[opening], orders.bid_ticks])[place]
        minute = (times - day * DAY) // MINUTE
        return bids, path.pressure[minute] + 0.8 * path.book_noise[minute]

    def book(self, kind: str, symbol: str, time: int) -> Book:
        """Return the book at an instant."""
        return book_at(self, kind, symbol, time)

    def book_times(self, _kind: str, _symbol: str, start: int, end: int, /) -> Array:
        """Return when the book took a new version."""
        return np.arange(-(-start // VERSION) * VERSION, end, VERSION)

    def funding(self, symbol: str, start: int, end: int) -> Columns:
        """Return the funding of every eighth hour: rate as a fraction and mark price."""
        return self._daily(self._funding_day, "calc_time", "um", symbol, start, end)

    def open_interest(self, symbol: str, start: int, end: int) -> Columns:
        """Return open interest at each fifth minute, in base assets and in USDT."""
        return self._daily(self._interest_day, "create_time", "um", symbol, start, end)

    def premium(self, symbol: str, time: int) -> tuple[float, float]:
        """Return mark and index price at an instant."""
        path = self.path(symbol, time // DAY)
        minute = time % DAY // MINUTE
        mark = float(np.exp(path.log_mid[minute]))
        return mark, mark / (1.0 + 2.0e-4 * float(path.premium[minute]))

    def liquidations(self, symbol: str, start: int, end: int) -> Columns:
        """Return the forced orders of the minute after a strong move: a fall sells longs."""
        return self._daily(self._liquidation_days, "time", "um", symbol, start, end)

    def _generator(self, kind: str, symbol: str, day: int, part: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, day, crc32(f"{kind} {symbol}".encode()), part])

    def _daily(
        self,
        generate: Callable[[str, str, int], Columns],
        key: str,
        kind: str,
        symbol: str,
        start: int,
        end: int,
    ) -> Columns:
        first = max(start // DAY, self._first_day)
        days = [generate(kind, symbol, day) for day in range(first, max(-(-end // DAY), first + 1))]
        return between(concatenate(days), key, start, end)

    def _aggregate_day(self, kind: str, symbol: str, day: int) -> Columns:
        orders = self.orders(kind, symbol, day)
        path = self.path(symbol, day)
        item = self._instruments[kind][symbol]
        last_trade = path.first_trade + np.cumsum(orders.fills) - 1
        return {
            "agg_trade_id": path.first_order + np.arange(len(orders.time)),
            "price": (orders.bid_ticks + orders.is_buy) / 10.0**item.price_decimals,
            "quantity": orders.lots / 10.0**item.quantity_decimals,
            "first_trade_id": last_trade - orders.fills + 1,
            "last_trade_id": last_trade,
            "transact_time": orders.time,
            "is_buyer_maker": ~orders.is_buy,
        }

    def _trade_day(self, kind: str, symbol: str, day: int) -> Columns:
        orders = self.orders(kind, symbol, day)
        path = self.path(symbol, day)
        item = self._instruments[kind][symbol]
        generator = self._generator(kind, symbol, day, 1)
        order = np.repeat(np.arange(len(orders.time)), orders.fills)
        half = 1 + np.floor(generator.random(len(orders.time)) * (orders.lots - 1)).astype(np.int64)
        first_part = np.where(orders.fills == 2, half, orders.lots)
        is_second = np.concatenate([[False], order[1:] == order[:-1]])
        lots = np.where(is_second, orders.lots[order] - first_part[order], first_part[order])
        ticks = (orders.bid_ticks + orders.is_buy)[order]
        return {
            "id": path.first_trade + np.arange(len(order)),
            "price": ticks / 10.0**item.price_decimals,
            "qty": lots / 10.0**item.quantity_decimals,
            "quote_qty": ticks * lots / 10.0 ** (item.price_decimals + item.quantity_decimals),
            "time": orders.time[order],
            "is_buyer_maker": ~orders.is_buy[order],
        }

    def _generate_minutes(self, kind: str, symbol: str, day: int) -> Columns:
        return self._minutes_until(kind, symbol, day, (day + 1) * DAY)

    def _minutes_until(self, kind: str, symbol: str, day: int, now: int) -> Columns:
        orders = self.orders(kind, symbol, day)
        path = self.path(symbol, day)
        return candles.minutes(
            orders.time,
            orders.bid_ticks + orders.is_buy,
            orders.lots,
            orders.fills,
            orders.is_buy,
            day=day,
            now=now,
            first_trade=path.first_trade,
            previous_close=self._close_before(kind, symbol, day),
            item=self._instruments[kind][symbol],
        )

    def _close_before(self, kind: str, symbol: str, day: int) -> int:
        if day == self._first_day:
            item = self._instruments[kind][symbol]
            return int(item.first_price * 10.0**item.price_decimals)
        before = self.orders(kind, symbol, day - 1)
        if not len(before.time):
            return self._close_before(kind, symbol, day - 1)
        return int(before.bid_ticks[-1] + before.is_buy[-1])

    def _funding_day(self, _kind: str, symbol: str, day: int) -> Columns:
        path = self.path(symbol, day)
        return {
            "calc_time": day * DAY + np.arange(3) * 8 * 60 * MINUTE,
            "funding_interval_hours": np.full(3, 8),
            "last_funding_rate": path.funding_rates,
            "mark_price": np.round(np.exp(path.log_mid[[0, 480, 960]]), 8),
        }

    def _interest_day(self, kind: str, symbol: str, day: int) -> Columns:
        path = self.path(symbol, day)
        item = self._instruments[kind][symbol]
        interest = np.round(path.open_interest, item.quantity_decimals)
        return {
            "create_time": day * DAY + np.arange(288) * 5 * MINUTE,
            "sum_open_interest": interest,
            "sum_open_interest_value": np.round(interest * np.exp(path.log_mid[:-1:5]), 8),
        }

    def _liquidation_day(self, kind: str, symbol: str, day: int) -> Columns:
        path = self.path(symbol, day)
        item = self._instruments[kind][symbol]
        generator = self._generator(kind, symbol, day, 2)
        returns = np.diff(path.log_mid)[:-1]
        excess = np.maximum(np.abs(returns) / item.volatility - _LIQUIDATING_MOVE, 0.0)
        moved = np.repeat(np.arange(paths.MINUTES - 1), generator.poisson(2.0 * excess))
        minute = moved + 1
        time = day * DAY + (np.sort(minute + generator.random(len(minute))) * MINUTE).astype(
            np.int64
        )
        bids = self.quotes(kind, symbol, time)[0] if len(time) else time
        price = bids / 10.0**item.price_decimals
        away = np.where(returns[moved] < 0, -1.0, 1.0) * 4.0e-3
        notional = 3_000.0 * np.exp(1.3 * generator.standard_normal(len(minute)))
        step = 10.0**-item.quantity_decimals
        quantity = np.round(np.maximum(notional / price, step), item.quantity_decimals)
        return {
            "time": time,
            "side": np.where(returns[moved] < 0, "SELL", "BUY"),
            "order_type": np.full(len(minute), "LIMIT"),
            "time_in_force": np.full(len(minute), "IOC"),
            "original_quantity": quantity,
            "price": np.round(price * (1.0 + away), item.price_decimals),
            "average_price": price,
            "order_status": np.full(len(minute), "FILLED"),
            "last_fill_quantity": quantity,
            "accumulated_fill_quantity": quantity,
        }


def _chosen(generator: np.random.Generator, minute: Array, counts: Array) -> Array:
    """Mark ``counts[m]`` random elements of each minute ``m`` with 1, the others with 0."""
    chance = generator.random(len(minute))
    order = np.lexsort((chance, minute))
    sizes = np.bincount(minute, minlength=len(counts))
    rank = np.arange(len(minute)) - (np.cumsum(sizes) - sizes)[minute]
    chosen = np.empty(len(minute), dtype=np.int64)
    chosen[order] = rank < counts[minute]
    return chosen
