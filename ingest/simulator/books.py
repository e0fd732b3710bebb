"""Order books of the synthetic market, at any instant and as files."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ingest.simulator.source import MINUTE, SECOND, Array, Book, microseconds

if TYPE_CHECKING:
    from ingest.simulator.market import Market

LEVELS = 25
# A book changes at most every half second; each version has an update id of its own.
VERSION = SECOND // 2
IDS_PER_VERSION = 100
_LEAN = 0.35
_BEST_NOTIONAL = 6_000.0
_SNAPSHOT_SECOND = 59


def _hashed(values: Array, salt: int) -> Array:
    """Return uniforms in (0, 1) from integers, by the finaliser of splitmix64."""
    state = values.astype(np.uint64) + np.uint64(salt * 0x9E3779B97F4A7C15 % 2**64)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    state = state ^ (state >> np.uint64(31))
    return (state >> np.uint64(11)).astype(float) / 2.0**53 + 2.0**-54


def _side(
    best: Array, lean: Array, version: Array, *, sign: int, salt: int, notional_lots: float
) -> tuple[Array, Array]:
    """Return price ticks and lots, both of shape (times, LEVELS), best level first.

    ``sign`` is -1 for bids and 1 for asks. A resting level keeps its quantity for 16 versions,
    starting at a moment that depends on its price.
    """
    ticks = best[:, None] + sign * np.arange(LEVELS)
    phase = (ticks * 7) % 16
    epoch = (version[:, None] + phase) // 16
    noise = _hashed(ticks * 1_000_003 + epoch, 2 * salt + (sign > 0))
    size = notional_lots * (1.0 + 0.12 * np.arange(LEVELS)) * (0.4 - np.log(noise))
    lots = np.rint(size * np.exp(-sign * _LEAN * lean)[:, None]).astype(np.int64)
    return ticks, np.maximum(lots, 1)


def ladders(
    market: Market, kind: str, symbol: str, times: Array
) -> tuple[Array, Array, Array, Array]:
    """Return bid prices, bid quantities, ask prices and ask quantities at instants of one day.

    Parameters
    ----------
    times : array of int
        Microseconds since the epoch, all of one UTC day.

    Returns
    -------
    tuple of arrays of shape (len(times), LEVELS), best level first.
    """
    item = market.instruments(kind)[symbol]
    version = times // VERSION
    bids, lean = market.quotes(kind, symbol, version * VERSION)
    price = item.first_price
    notional_lots = _BEST_NOTIONAL / price * 10.0**item.quantity_decimals
    salt = market.seed * 31 + (kind == "um")
    bid_ticks, bid_lots = _side(
        bids, lean, version, sign=-1, salt=salt, notional_lots=notional_lots
    )
    ask_ticks, ask_lots = _side(
        bids + 1, lean, version, sign=1, salt=salt, notional_lots=notional_lots
    )
    price_unit, quantity_unit = 10.0**item.price_decimals, 10.0**item.quantity_decimals
    return (
        bid_ticks / price_unit,
        bid_lots / quantity_unit,
        ask_ticks / price_unit,
        ask_lots / quantity_unit,
    )


def update_id(time: int) -> int:
    """Return the last update id of the book at an instant."""
    return time // VERSION * IDS_PER_VERSION


def book_at(market: Market, kind: str, symbol: str, time: int) -> Book:
    """Return the book of the version that holds at an instant."""
    sides = ladders(market, kind, symbol, np.array([time]))
    return Book(update_id(time), time // VERSION * VERSION, *(side[0] for side in sides))


def write_books(
    market: Market, kind: str, symbol: str, day: date, directory: Path, *, levels: int = 20
) -> Path:
    """Write a day's books, one a minute, as a Parquet file.

    No public archive holds full books, so these are files that a user already has. The layout is
    that of the recorded ``depth_book1000`` files: times in milliseconds (``exch_ts_ms`` by the
    exchange, ``ts_ms`` on arrival, 20 ms later), list columns from the best level outwards.

    Parameters
    ----------
    day : date
        UTC day. Snapshots are taken at second 59 of each minute.
    directory : Path
        Gets ``<kind>/depth_book<levels>_<SYMBOL>_<date>.parquet``.

    Returns
    -------
    Path of the file.
    """
    midnight = microseconds(datetime(day.year, day.month, day.day, tzinfo=UTC))
    times = midnight + np.arange(1440) * MINUTE + _SNAPSHOT_SECOND * SECOND
    sides = [side[:, :levels] for side in ladders(market, kind, symbol, times)]
    offsets = np.arange(1441) * levels
    lists = [pa.ListArray.from_arrays(offsets, pa.array(side.ravel())) for side in sides]
    table = pa.table(
        {
            "ts_ms": times // 1000 + 20,
            "exch_ts_ms": times // 1000,
            "symbol": pa.array([symbol] * 1440),
            "seq": times // VERSION * IDS_PER_VERSION,
            "depth_actual": np.full(1440, levels),
            "best_bid": sides[0][:, 0],
            "best_ask": sides[2][:, 0],
            "bids_px": lists[0],
            "bids_qty": lists[1],
            "asks_px": lists[2],
            "asks_qty": lists[3],
            "reconnect_flag": np.zeros(1440, np.int64),
        }
    )
    name = f"depth_book{levels}_{symbol}_{day:%Y-%m-%d}.parquet"
    path = directory / kind / name
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, compression="zstd")
    return path
