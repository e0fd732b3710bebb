"""Candles as exact aggregates of trades: sums are taken over whole ticks and lots."""

from __future__ import annotations

import numpy as np

from ingest.simulator.instruments import Instrument
from ingest.simulator.source import DAY, MINUTE, Array, Columns

_SUMS = ("volume", "quote_volume", "count", "taker_buy_volume", "taker_buy_quote_volume")
_WHOLE = ("open_time", "close_time", "count", "first_trade_id", "last_trade_id")
_NAMES = (
    *("open_time", "open", "high", "low", "close", "volume", "close_time", "quote_volume"),
    *("count", "taker_buy_volume", "taker_buy_quote_volume", "first_trade_id", "last_trade_id"),
)
EMPTY: Columns = {name: np.empty(0, np.int64 if name in _WHOLE else float) for name in _NAMES}


def minutes(
    time: Array,
    ticks: Array,
    lots: Array,
    fills: Array,
    is_buy: Array,
    *,
    day: int,
    now: int,
    first_trade: int,
    previous_close: int,
    item: Instrument,
) -> Columns:
    """Aggregate a day's orders to one-minute candles, up to ``now``.

    A minute without orders has count 0, open = high = low = close = the close before it, and
    trade ids -1.
    """
    shown = int(np.searchsorted(time, now))
    time, ticks, lots, fills, is_buy = (
        values[:shown] for values in (time, ticks, lots, fills, is_buy)
    )
    opened = np.arange(day * DAY, min((day + 1) * DAY, -(-now // MINUTE) * MINUTE), MINUTE)
    size = len(opened)
    minute = (time - day * DAY) // MINUTE
    ends = np.searchsorted(minute, np.arange(size), side="right")
    starts = np.searchsorted(minute, np.arange(size), side="left")
    traded = ends > starts
    close = np.concatenate([[previous_close], ticks])[ends]
    open_, high, low = close.copy(), close.copy(), close.copy()
    first = starts[traded]
    open_[traded] = ticks[first]
    if len(first):
        high[traded] = np.maximum.reduceat(ticks, first)
        low[traded] = np.minimum.reduceat(ticks, first)

    def total(weights: Array) -> Array:
        return np.bincount(minute, weights=weights, minlength=size)

    price_unit = 10.0**item.price_decimals
    quantity_unit = 10.0**item.quantity_decimals
    filled = np.concatenate([[0], np.cumsum(fills)]) + first_trade
    return {
        "open_time": opened,
        "open": open_ / price_unit,
        "high": high / price_unit,
        "low": low / price_unit,
        "close": close / price_unit,
        "volume": total(lots) / quantity_unit,
        "close_time": opened + MINUTE - 1,
        "quote_volume": total(ticks * lots) / (price_unit * quantity_unit),
        "count": total(fills).astype(np.int64),
        "taker_buy_volume": total(lots * is_buy) / quantity_unit,
        "taker_buy_quote_volume": total(ticks * lots * is_buy) / (price_unit * quantity_unit),
        "first_trade_id": np.where(traded, filled[starts], -1),
        "last_trade_id": np.where(traded, filled[ends] - 1, -1),
    }


def roll_up(columns: Columns, width: int) -> Columns:
    """Aggregate minutes to candles of ``width`` microseconds.

    Open, high, low and close come from the minutes that traded, so that a candle equals the
    aggregate of its trades also when its first minute had none.
    """
    opened = columns["open_time"]
    if width == MINUTE or not len(opened):
        return columns
    group = opened // width
    starts = np.flatnonzero(np.concatenate([[True], group[1:] != group[:-1]]))
    ends = np.concatenate([starts[1:], [len(opened)]])
    traded = columns["count"] > 0
    places = np.arange(len(opened))
    first = np.minimum.reduceat(np.where(traded, places, len(opened)), starts)
    is_silent = first == len(opened)
    first = np.where(is_silent, starts, first)
    last = np.where(is_silent, starts, np.maximum.reduceat(np.where(traded, places, -1), starts))
    shown = traded | np.repeat(is_silent, ends - starts)
    rolled = {name: np.add.reduceat(columns[name], starts) for name in _SUMS}
    return {
        "open_time": group[starts] * width,
        "open": columns["open"][first],
        "high": np.maximum.reduceat(np.where(shown, columns["high"], -np.inf), starts),
        "low": np.minimum.reduceat(np.where(shown, columns["low"], np.inf), starts),
        "close": columns["close"][last],
        "volume": np.round(rolled["volume"], 8),
        "close_time": (group[starts] + 1) * width - 1,
        "quote_volume": np.round(rolled["quote_volume"], 8),
        "count": rolled["count"],
        "taker_buy_volume": np.round(rolled["taker_buy_volume"], 8),
        "taker_buy_quote_volume": np.round(rolled["taker_buy_quote_volume"], 8),
        "first_trade_id": columns["first_trade_id"][first],
        "last_trade_id": columns["last_trade_id"][last],
    }
