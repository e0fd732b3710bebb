"""The public archives: zipped CSV files by month and day, each with its checksum."""

from __future__ import annotations

import asyncio
import hashlib
import io
import re
import zipfile
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
from aiohttp import web

from ingest.simulator.exchange import EXCHANGE
from ingest.simulator.formats import Decimals, decimals
from ingest.simulator.source import INTERVALS, Columns, Source, length, microseconds

_PATH = re.compile(
    r"(?P<market>spot|futures/um)/(?P<period>daily|monthly)/(?P<table>\w+)/(?P<symbol>[^/]+)/"
    r"(?:(?P<interval>[^/]+)/)?(?P<name>[^/]+)\.zip(?P<checksum>\.CHECKSUM)?"
)
# Spot archives carry microseconds from this day on, milliseconds before.
MICROSECONDS_FROM = datetime(2025, 1, 1, tzinfo=UTC)
_TABLES = {
    ("spot", "daily"): {"klines", "aggTrades", "trades"},
    ("spot", "monthly"): {"klines", "aggTrades", "trades"},
    ("um", "daily"): {"klines", "aggTrades", "trades", "liquidationSnapshot"},
    ("um", "monthly"): {"klines", "aggTrades", "trades", "fundingRate"},
}
_TIMES = ("open_time", "close_time", "time", "transact_time", "calc_time")
_QUOTES = ("quote_volume", "taker_buy_quote_volume", "quote_qty")
_PRICES = ("open", "high", "low", "close", "price")


@dataclass(frozen=True)
class Archive:
    """One file: what it holds and the interval ``[start, end)`` it covers."""

    kind: str
    table: str
    symbol: str
    interval: str
    name: str
    start: datetime
    end: datetime


def parse(path: str) -> tuple[Archive, bool] | None:
    """Read an archive's address; None if no such file could exist. True marks a checksum."""
    match = _PATH.fullmatch(path)
    if match is None:
        return None
    part = match.groupdict()
    kind = "spot" if part["market"] == "spot" else "um"
    table, interval = part["table"], part["interval"] or ""
    if table not in _TABLES[kind, part["period"]]:
        return None
    if (table == "klines") != (interval in INTERVALS):
        return None
    prefix = f"{part['symbol']}-{interval or table}-"
    is_monthly = part["period"] == "monthly"
    pattern = r"\d{4}-\d{2}" if is_monthly else r"\d{4}-\d{2}-\d{2}"
    date = part["name"].removeprefix(prefix)
    if not part["name"].startswith(prefix) or not re.fullmatch(pattern, date):
        return None
    try:
        start = datetime.strptime(date, "%Y-%m" if is_monthly else "%Y-%m-%d").replace(tzinfo=UTC)
    except ValueError:
        return None
    end = start + timedelta(days=1)
    if is_monthly:
        end = (start + timedelta(days=31)).replace(day=1)
    archive = Archive(kind, table, part["symbol"], interval, part["name"], start, end)
    return archive, bool(part["checksum"])


def rows(source: Source, archive: Archive) -> Columns:
    """Return the columns of an archive, in the exchange's order."""
    kind, symbol = archive.kind, archive.symbol
    start, end = microseconds(archive.start), microseconds(archive.end)
    if archive.table == "klines":
        columns = source.klines(kind, symbol, archive.interval, start, end, now=end)
        columns = {
            name: values for name, values in columns.items() if not name.endswith("_trade_id")
        }
        return columns | {"ignore": np.zeros(length(columns), np.int64)}
    if archive.table == "aggTrades":
        columns = source.aggregate_trades(kind, symbol, start, end)
    elif archive.table == "trades":
        columns = source.trades(kind, symbol, start, end)
    elif archive.table == "fundingRate":
        columns = source.funding(symbol, start, end)
        return {name: values for name, values in columns.items() if name != "mark_price"}
    else:
        return source.liquidations(symbol, start, end)
    if kind == "spot":
        columns = columns | {"is_best_match": np.ones(length(columns), bool)}
    return columns


def _fixed(values: pa.Array, digits: int) -> pa.Array:
    """Write numbers with so many digits; Arrow alone would write zero as 0E-8."""
    text = pc.round(values, digits).cast(pa.decimal128(30, digits)).cast(pa.string())
    is_scientific = pc.fill_null(pc.match_substring(text, "E"), False)
    plain = [f"{value:.{digits}f}" for value in values.filter(is_scientific).to_pylist()]
    return pc.replace_with_mask(text, is_scientific, pa.array(plain, pa.string()))


def _column(
    archive: Archive, name: str, values: pa.Array, digits: Decimals, *, divisor: int
) -> pa.Array:
    if name in _TIMES:
        return pc.divide(values, divisor)
    if pa.types.is_floating(values.type):
        known = pc.if_else(pc.is_nan(values), pa.scalar(None, pa.float64()), values)
        if archive.table == "liquidationSnapshot":
            return known
        scale = digits.quantity
        if name in _PRICES:
            scale = digits.price
        elif name in _QUOTES:
            scale = digits.quote
        elif name == "last_funding_rate":
            scale = 8
        elif name == "count":
            scale = 0
        return _fixed(known, scale)
    if pa.types.is_boolean(values.type) and archive.kind == "spot":
        return pc.if_else(values, "True", "False")
    return values


def csv_text(archive: Archive, columns: Columns, digits: Decimals) -> bytes:
    """Write an archive's CSV: USD-M with a header line, spot without."""
    is_fine = archive.kind == "spot" and archive.start >= MICROSECONDS_FROM
    divisor = 1 if is_fine else 1000
    table = pa.table(
        {
            name: _column(archive, name, pa.array(values), digits, divisor=divisor)
            for name, values in columns.items()
        }
    )
    sink = io.BytesIO()
    if archive.kind == "um":
        sink.write(",".join(columns).encode() + b"\n")
    options = pyarrow.csv.WriteOptions(include_header=False, quoting_style="none")
    pyarrow.csv.write_csv(table, sink, options)
    return sink.getvalue()


def build(source: Source, archive: Archive) -> bytes | None:
    """Return the bytes of an archive's zip file, None if the source has no rows for it."""
    item = source.instruments(archive.kind).get(archive.symbol)
    if item is None or archive.end <= source.start:
        return None
    columns = rows(source, archive)
    is_quiet = archive.table == "liquidationSnapshot" and source.has_every_day
    if not length(columns) and not is_quiet:
        return None
    sink = io.BytesIO()
    entry = zipfile.ZipInfo(f"{archive.name}.csv", archive.end.timetuple()[:6])
    text = csv_text(archive, columns, decimals(archive.kind, item))
    with zipfile.ZipFile(sink, "w") as file:
        file.writestr(entry, text, zipfile.ZIP_DEFLATED, compresslevel=1)
    return sink.getvalue()


def routes(source: Source) -> web.RouteTableDef:
    """Serve ``/data/...``; a file exists from the end of its period on."""
    table = web.RouteTableDef()
    cached = lru_cache(maxsize=8)(lambda archive: build(source, archive))

    @table.get("/data/{path:.+}")
    async def archive_file(request: web.Request) -> web.Response:
        parsed = parse(request.match_info["path"])
        now = request.app[EXCHANGE].clock.now()
        if parsed is None or microseconds(parsed[0].end) > now:
            raise web.HTTPNotFound(text="NoSuchKey")
        archive, is_checksum = parsed
        content = await asyncio.to_thread(cached, archive)
        if content is None:
            raise web.HTTPNotFound(text="NoSuchKey")
        if is_checksum:
            digest = hashlib.sha256(content).hexdigest()
            return web.Response(text=f"{digest}  {archive.name}.zip\n")
        return web.Response(body=content, content_type="application/zip")

    return table
