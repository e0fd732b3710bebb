"""Files that a user already has: Binance's CSV, zipped or not, and Parquet."""

import hashlib
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import get_args

import pyarrow as pa
import pyarrow.compute as pc

from ingest import books
from ingest.kinds import INTERVALS_US, KINDS, Kind, KindName
from ingest.landing import Batch, Entry, Series, land, landed_files, unit
from ingest.replay import is_changes
from ingest.report import OnStep, Report, Step, Tally, ignore
from ingest.settings import Market, Settings
from ingest.tabular import DAMAGE, SUFFIXES, column_names, first_fields, is_header, read
from ingest.validation import Checked, Origin, UnknownLayoutError, match_columns

# Shorter parts of a file's name are not taken for a symbol.
_SHORTEST_SYMBOL = 5
_KNOWN_OTHERWISE = ("symbol", "interval", "is_aggregate")


def ingest_files(
    settings: Settings,
    kind: KindName,
    paths: Sequence[Path],
    *,
    market: Market | None = None,
    symbols: Sequence[str] = (),
    intervals: Sequence[str] = (),
    on_step: OnStep = ignore,
) -> Report:
    """Land files that hold one kind of data; those that landed before are skipped.

    Parameters
    ----------
    settings : Settings
        Names the warehouse.
    kind : str
        What the files hold.
    paths : sequence of Path
        CSV, zip and Parquet files, and directories of which every file is taken whose columns
        are those of the kind.
    market : {"spot", "um"}, optional
        Otherwise the nearest directory called spot or um tells, else the settings.
    symbols, intervals : sequence of str
        If given, only these are taken; a single one also names the series of a file whose
        columns and name do not.
    on_step : callable
        Told of each file before it is read.

    Returns
    -------
    Report
        One line per series. A file that cannot be read is a failure; the others land.

    Raises
    ------
    FileNotFoundError
        If a path does not exist, or a directory holds no such file.
    """
    kind_ = KINDS[kind]
    files = [file for path in paths for file in _files(path, kind_)]
    tally = Tally()

    def batches() -> Iterator[Batch]:
        landed = landed_files(settings, kind)
        for done, path in enumerate(files):
            on_step(Step(done, len(files), path.name))
            try:
                series = _series(path, kind_, market or _market(path, settings))
                if not _is_wanted(series, symbols, intervals):
                    continue
                series = _named(path, kind_, series, symbols, intervals)
                sha256 = _sha256(path)
                if (series, sha256) in landed:
                    tally.skip(series)
                    continue
                landed.add((series, sha256))
                entry = Entry(series, f"file:{path.name}", sha256)
                yield from unit(_parts(settings, path, kind_, series, symbols), entry)
            except (UnknownLayoutError, *DAMAGE) as error:
                tally.fail(str(path), str(error))
        on_step(Step(len(files), len(files), "done"))

    return tally.report(land(settings, batches()))


def _files(path: Path, kind: Kind) -> list[Path]:
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise FileNotFoundError(f"there is no file or directory {path}")
    found = sorted(file for file in path.rglob("*") if file.suffix in SUFFIXES)
    held = [file for file in found if _may_hold(file, kind)]
    if not held:
        raise FileNotFoundError(
            f"none of the {len(found)} CSV, zip and Parquet files below {path} holds {kind.name}"
        )
    return held


def _may_hold(path: Path, kind: Kind) -> bool:
    """Return whether a file holds a kind, or is damaged, which its reader will say."""
    try:
        return _holds(path, kind)
    except UnknownLayoutError:
        return False
    except DAMAGE:
        return True


def _holds(path: Path, kind: Kind) -> bool:
    names = first_fields(path)
    if path.suffix == ".parquet" or is_header(names):
        if books.is_long(names) or is_changes(names):
            return kind.name == "books"
        try:
            match_columns(kind, names, constants=_KNOWN_OTHERWISE, where=path.name)
        except UnknownLayoutError:
            return False
        return True
    words = _words(path)
    if kind.name == "klines":
        return any(word in INTERVALS_US for word in words)
    marks = {"trades": "trades", "funding": "funding", "open_interest": "metrics"}
    mark = marks.get(kind.name, kind.name.rstrip("s"))
    return any(mark in word.lower() for word in words)


def _words(path: Path) -> list[str]:
    return path.stem.replace("-", "_").split("_")


def _market(path: Path, settings: Settings) -> Market:
    for parent in path.absolute().parents:
        if parent.name in get_args(Market):
            return "spot" if parent.name == "spot" else "um"
    return settings.market


def _series(path: Path, kind: Kind, market: Market) -> Series:
    words = _words(path)
    symbols = [word for word in words if word.isupper() and len(word) >= _SHORTEST_SYMBOL]
    intervals = [word for word in words if word in INTERVALS_US]
    return Series(
        kind.name,
        market,
        symbols[0] if symbols else None,
        intervals[0] if intervals and kind.name == "klines" else None,
    )


def _is_wanted(series: Series, symbols: Sequence[str], intervals: Sequence[str]) -> bool:
    is_other_symbol = symbols and series.symbol and series.symbol not in symbols
    is_other_interval = intervals and series.interval and series.interval not in intervals
    return not is_other_symbol and not is_other_interval


def _named(
    path: Path, kind: Kind, series: Series, symbols: Sequence[str], intervals: Sequence[str]
) -> Series:
    columns = column_names(path, kind)
    if not books.is_long(columns) and not is_changes(columns):
        match_columns(kind, columns, constants=_KNOWN_OTHERWISE, where=path.name)
    names = {name.lower() for name in columns}
    symbol, interval = series.symbol, series.interval
    if symbol is None and "symbol" not in names:
        if len(symbols) != 1:
            raise UnknownLayoutError(
                f"neither the columns nor the name of {path.name} tell its symbol: "
                "name it with one --symbol"
            )
        symbol = symbols[0]
    if kind.name == "klines" and interval is None and "interval" not in names:
        if len(intervals) != 1:
            raise UnknownLayoutError(
                f"neither the columns nor the name of {path.name} tell its interval: "
                "name it with one --interval"
            )
        interval = intervals[0]
    return Series(series.kind, series.market, symbol, interval)


def _parts(
    settings: Settings, path: Path, kind: Kind, series: Series, symbols: Sequence[str]
) -> Iterator[Checked]:
    origin = Origin(
        settings.exchange,
        series.market,
        f"file:{path.name}",
        datetime.now(UTC),
        _constants(series),
    )
    for checked in read(path, kind, origin):
        if symbols and series.symbol is None:
            yield Checked(_only(checked.rows, symbols), _only(checked.rejects, symbols))
        else:
            yield checked


def _constants(series: Series) -> tuple[tuple[str, str], ...]:
    known = (("symbol", series.symbol), ("interval", series.interval))
    return tuple((name, value) for name, value in known if value)


def _only(table: pa.Table, symbols: Sequence[str]) -> pa.Table:
    return table.filter(pc.is_in(table["symbol"], pa.array(symbols)))


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
