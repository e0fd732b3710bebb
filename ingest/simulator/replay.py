"""Recorded files as a market source.

A directory holds ``spot`` and ``um``; the name of a file says what it is, and the columns carry
the exchange's names: ``klines_<SYMBOL>_<interval>``, ``trades_<SYMBOL>``, ``agg_trades_<SYMBOL>``,
``depth_book<levels>_<SYMBOL>``, ``funding_<SYMBOL>``, ``open_interest_<SYMBOL>`` and
``liquidations``, each with an optional suffix after ``_`` and the ending ``.parquet`` or ``.csv``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from ingest.simulator.instruments import KINDS, Instrument
from ingest.simulator.source import INTERVALS, Array, Book, Columns, between, instant

_NAME = re.compile(
    r"(?P<table>klines|agg_trades|trades|depth_book|funding|open_interest|liquidations)\d*"
    r"(?:_(?P<symbol>[^_.]+)(?:_(?P<suffix>[^.]+))?)?\.(?:parquet|csv)"
)
# For each table: the columns served, in the archives' order, and their names in the files.
_LAYOUTS: dict[str, dict[str, str]] = {
    "klines": {
        name: name
        for name in (
            *("open_time", "open", "high", "low", "close", "volume", "close_time"),
            *("quote_volume", "count", "taker_buy_volume", "taker_buy_quote_volume"),
        )
    },
    "trades": {
        name: name for name in ("id", "price", "qty", "quote_qty", "time", "is_buyer_maker")
    },
    "agg_trades": {
        name: name
        for name in (
            *("agg_trade_id", "price", "quantity", "first_trade_id"),
            *("last_trade_id", "transact_time", "is_buyer_maker"),
        )
    },
    "depth_book": {
        name: name for name in ("exch_ts_ms", "seq", "bids_px", "bids_qty", "asks_px", "asks_qty")
    },
    "funding": {
        "calc_time": "funding_time",
        "funding_interval_hours": "funding_interval_hours",
        "last_funding_rate": "funding_rate",
        "mark_price": "mark_price",
    },
    "open_interest": {
        name: name for name in ("create_time", "sum_open_interest", "sum_open_interest_value")
    },
    "liquidations": {
        "time": "order_trade_time",
        "symbol": "symbol",
        "side": "side",
        "order_type": "order_type",
        "time_in_force": "time_in_force",
        "original_quantity": "original_quantity",
        "price": "price",
        "average_price": "average_price",
        "order_status": "order_status",
        "last_fill_quantity": "order_last_filled_quantity",
        "accumulated_fill_quantity": "order_filled_accumulated_quantity",
    },
}
_KEYS = {
    "klines": ("open_time",),
    "trades": ("time", "id"),
    "agg_trades": ("transact_time", "agg_trade_id"),
    "depth_book": ("exch_ts_ms",),
    "funding": ("calc_time",),
    "open_interest": ("create_time",),
    "liquidations": ("time",),
}
_TEXTS = ("symbol", "side", "order_type", "time_in_force", "order_status")
_DEFAULTS = {"funding_interval_hours": 8}
_QUOTES = ("USDT", "USDC", "BUSD", "BTC", "ETH", "BNB", "USD")
_WHOLE = ("agg_trade_id", "id", "first_trade_id", "last_trade_id", "seq")
_SAMPLE = 20_000


@dataclass(frozen=True)
class _Recording:
    kind: str
    table: str
    symbol: str
    interval: str
    path: Path


@dataclass(frozen=True)
class _Ladders:
    """Lists of one side's column, end to end, with the place where each begins."""

    starts: Array
    values: Array


class Replay:
    """A market read from recorded files, loaded when first asked for.

    Values that were not recorded are NaN. Candles come as they were recorded, once closed; there
    is no running candle and no other interval than the recorded ones.

    Parameters
    ----------
    directory : Path
        Holds ``spot`` and/or ``um``.

    Raises
    ------
    FileNotFoundError
        If no recording is found.
    """

    def __init__(self, directory: Path) -> None:
        self._recordings = _recordings(directory)
        if not self._recordings:
            raise FileNotFoundError(
                f"no recordings in {directory}; expected files such as "
                f"{directory / 'spot' / 'klines_BTCUSDT_1m.parquet'}"
            )
        self._table = lru_cache(maxsize=64)(self._load)
        self._ladders = lru_cache(maxsize=4)(self._load_ladders)
        self._instruments = {kind: self._describe(kind) for kind in KINDS}
        times = [_extent(recording) for recording in self._recordings]
        self.start = instant(min(first for first, _ in times))
        self.end = instant(max(last for _, last in times)) + timedelta(seconds=1)

    start: datetime
    end: datetime
    has_every_day = False

    def instruments(self, kind: str) -> Mapping[str, Instrument]:
        """Return the recorded symbols of a market by name."""
        return self._instruments[kind]

    def klines(
        self, kind: str, symbol: str, interval: str, start: int, end: int, *, now: int
    ) -> Columns:
        """Return the recorded candles that have closed."""
        found = between(self._table(kind, "klines", symbol, interval), "open_time", start, end)
        closed = found["open_time"] + INTERVALS[interval] <= now
        missing = np.full(int(closed.sum()), -1)
        return {name: values[closed] for name, values in found.items()} | {
            "first_trade_id": missing,
            "last_trade_id": missing,
        }

    def trades(self, kind: str, symbol: str, start: int, end: int) -> Columns:
        """Return recorded single trades."""
        return between(self._table(kind, "trades", symbol), "time", start, end)

    def aggregate_trades(self, kind: str, symbol: str, start: int, end: int) -> Columns:
        """Return recorded aggregate trades."""
        return between(self._table(kind, "agg_trades", symbol), "transact_time", start, end)

    def time_of_trade(
        self, kind: str, symbol: str, trade_id: int, *, aggregate: bool, now: int
    ) -> int:
        """Return when a trade, or the next recorded one, happened; ``now`` if there is none."""
        columns = self._table(kind, "agg_trades" if aggregate else "trades", symbol)
        ids = columns["agg_trade_id" if aggregate else "id"]
        later = np.flatnonzero(ids >= trade_id)
        times = columns["transact_time" if aggregate else "time"]
        return int(times[later[0]]) if len(later) else now

    def book_times(self, kind: str, symbol: str, start: int, end: int, /) -> Array:
        """Return when books were recorded."""
        return between(self._table(kind, "depth_book", symbol), "exch_ts_ms", start, end)[
            "exch_ts_ms"
        ]

    def book(self, kind: str, symbol: str, time: int) -> Book | None:
        """Return the book last recorded at or before an instant."""
        columns = self._table(kind, "depth_book", symbol)
        place = int(np.searchsorted(columns["exch_ts_ms"], time, side="right")) - 1
        if place < 0:
            return None
        sides = [
            ladders.values[ladders.starts[place] : ladders.starts[place + 1]]
            for ladders in self._ladders(kind, symbol)
        ]
        return Book(int(columns["seq"][place]), int(columns["exch_ts_ms"][place]), *sides)

    def funding(self, symbol: str, start: int, end: int) -> Columns:
        """Return recorded funding."""
        return between(self._table("um", "funding", symbol), "calc_time", start, end)

    def open_interest(self, symbol: str, start: int, end: int) -> Columns:
        """Return recorded open interest."""
        return between(self._table("um", "open_interest", symbol), "create_time", start, end)

    def premium(self, _symbol: str, _time: int, /) -> tuple[float, float]:
        """Return unknown prices: mark and index are not recorded."""
        return float("nan"), float("nan")

    def liquidations(self, symbol: str, start: int, end: int) -> Columns:
        """Return recorded forced orders."""
        found = between(self._table("um", "liquidations", ""), "time", start, end)
        mine = found.pop("symbol") == symbol
        return {name: values[mine] for name, values in found.items()}

    def _files(self, kind: str, table: str, symbol: str, interval: str = "") -> list[_Recording]:
        wanted = (kind, table, symbol, interval)
        return [
            recording
            for recording in self._recordings
            if (recording.kind, recording.table, recording.symbol, recording.interval) == wanted
        ]

    def _load(self, kind: str, table: str, symbol: str, interval: str = "") -> Columns:
        names = {
            name: stored
            for name, stored in _LAYOUTS[table].items()
            if not name.startswith(("bids_", "asks_"))
        }
        parts = [
            _read(recording, names) for recording in self._files(kind, table, symbol, interval)
        ]
        columns = {
            name: np.concatenate([part[name] for part in parts]) if parts else np.empty(0, np.int64)
            for name in names
        }
        order = np.lexsort([columns[name] for name in reversed(_KEYS[table])])
        return {name: values[order] for name, values in columns.items()}

    def _load_ladders(self, kind: str, symbol: str) -> list[_Ladders]:
        tables = [_open(found.path) for found in self._files(kind, "depth_book", symbol)]
        table = pa.concat_tables(
            [part.select(list(_LAYOUTS["depth_book"].values())) for part in tables]
        ).sort_by("exch_ts_ms")
        return [
            _Ladders(
                np.concatenate([[0], np.cumsum(pc.list_value_length(column).to_numpy())]),
                pc.list_flatten(column).to_numpy(),
            )
            for column in (table[name] for name in ("bids_px", "bids_qty", "asks_px", "asks_qty"))
        ]

    def _describe(self, kind: str) -> dict[str, Instrument]:
        mine = [recording for recording in self._recordings if recording.kind == kind]
        found = {
            symbol: _instrument(symbol, [item.path for item in mine if item.symbol == symbol])
            for symbol in sorted({recording.symbol for recording in mine} - {""})
        }
        if kind == "um":
            liquidated = np.unique(self._table("um", "liquidations", "")["symbol"]).tolist()
            found |= {
                symbol: _new_instrument(symbol, 8, 8)
                for symbol in liquidated
                if symbol not in found
            }
        return found


def _recordings(directory: Path) -> list[_Recording]:
    found = []
    for kind in KINDS:
        for path in sorted((directory / kind).glob("*")):
            match = _NAME.fullmatch(path.name)
            if match is None:
                continue
            table, symbol, suffix = (
                match["table"],
                match["symbol"] or "",
                match["suffix"] or "",
            )
            if table == "klines" and suffix not in INTERVALS:
                raise ValueError(
                    f"expected klines_<SYMBOL>_<interval> with an interval of {list(INTERVALS)}, "
                    f"found {path}"
                )
            found.append(_Recording(kind, table, symbol, suffix if table == "klines" else "", path))
    return found


def _open(path: Path, columns: list[str] | None = None) -> pa.Table:
    table = pyarrow.csv.read_csv(path) if path.suffix == ".csv" else pq.read_table(path)
    if columns is None:
        return table
    return table.select([name for name in columns if name in table.column_names])


def _read(recording: _Recording, names: dict[str, str]) -> Columns:
    """Read the named columns, times in microseconds, unrecorded values as NaN."""
    time = _KEYS[recording.table][0]
    table = _open(recording.path, list(names.values()))
    columns = {}
    for name, stored in names.items():
        if stored not in table.column_names:
            missing = _DEFAULTS.get(name, np.nan)
            columns[name] = np.full(table.num_rows, missing)
            continue
        column = table[stored]
        if name in _TEXTS:
            columns[name] = np.asarray(column.to_pylist(), dtype=object)
        elif pa.types.is_boolean(column.type):
            columns[name] = column.to_numpy()
        elif name == time or name in _WHOLE:
            columns[name] = column.to_numpy().astype(np.int64)
        else:
            columns[name] = column.cast(pa.float64()).to_numpy()
    columns[time] = columns[time] * _unit(columns[time], recording.path)
    if recording.table == "klines":
        columns["close_time"] = columns["open_time"] + INTERVALS[recording.interval] - 1
    return columns


def _unit(times: Array, path: Path) -> int:
    """Return microseconds per unit of recorded times, by their magnitude."""
    if not len(times) or int(times.max()) >= 10**14:
        return 1
    if int(times.min()) >= 10**11:
        return 1000
    raise ValueError(
        f"expected epoch milliseconds or microseconds in {path}, found {int(times.min())}"
    )


def _extent(recording: _Recording) -> tuple[int, int]:
    stored = _LAYOUTS[recording.table][_KEYS[recording.table][0]]
    times = _open(recording.path, [stored])[stored].to_numpy()
    unit = _unit(times, recording.path)
    return int(times.min()) * unit, int(times.max()) * unit


def _instrument(symbol: str, paths: list[Path]) -> Instrument:
    prices, quantities = [0], [0]
    for path in paths:
        table = _open(path)
        for names, digits in (
            (("close", "price", "best_bid"), prices),
            (("volume", "qty", "quantity"), quantities),
        ):
            digits += [
                _decimals(table[name].slice(0, _SAMPLE))
                for name in names
                if name in table.column_names
            ]
    return _new_instrument(symbol, max(prices), max(quantities))


def _decimals(column: pa.ChunkedArray) -> int:
    """Return the digits after the point that recorded numbers use, at most 8."""
    if pa.types.is_decimal(column.type):
        return int(column.type.scale)
    values = column.drop_null().cast(pa.float64()).to_numpy()
    return next(
        (digits for digits in range(8) if np.array_equal(np.round(values, digits), values)), 8
    )


def _new_instrument(symbol: str, price_decimals: int, quantity_decimals: int) -> Instrument:
    quote = next((quote for quote in _QUOTES if symbol.endswith(quote)), "")
    return Instrument(
        symbol=symbol,
        base_asset=symbol.removesuffix(quote),
        quote_asset=quote,
        price_decimals=price_decimals,
        quantity_decimals=quantity_decimals,
        first_price=np.nan,
        volatility=np.nan,
        open_interest=np.nan,
    )
