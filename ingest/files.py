"""Files that a user already has: CSV, zipped or not, and Parquet."""

import hashlib
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import get_args

import pyarrow as pa
import pyarrow.compute as pc

from ingest import books
from ingest.batches import Batch, Entry, Series, unit
from ingest.intervals import INTERVALS_US, check_intervals
from ingest.kind import Kind, KindName
from ingest.kinds import KINDS
from ingest.landing import land
from ingest.ledger import landed_files
from ingest.replay import is_changes
from ingest.report import OnStep, Report, Step, Tally, ignore
from ingest.settings import Market, Settings
from ingest.tabular import DAMAGE, SUFFIXES, column_names, first_fields, is_header, read
from ingest.validation import Checked, Origin, UnknownLayoutError, match_columns
from ingest.world_kinds import MACRO_SERIES

# Shorter parts of a file's name are not taken for a symbol.
_SHORTEST_SYMBOL = 5
_KNOWN_OTHERWISE = ("symbol", "interval", "is_aggregate")
# Kinds of which the interval matters, and the column that makes naming it needless.
_INTERVAL_TOLD_BY = {"klines": "interval", "macro_bars": "close_time"}


def ingest_files(
    settings: Settings,
    kind: KindName,
    paths: Sequence[Path],
    *,
    market: Market | None = None,
    symbols: Sequence[str] = (),
    intervals: Sequence[str] = (),
    known_after: timedelta | None = None,
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
        columns and name do not. Symbols are series of macro bars, providers of news.
    known_after : timedelta, optional
        How long after it was published a headline could have been seen, where the file does not
        say; without it, such a headline counts as known from its landing.
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
    ValueError
        If an interval is unknown.
    """
    check_intervals(intervals)
    kind_ = KINDS[kind]
    files = [file for path in paths for file in _files(path, kind_)]
    tally = Tally()
    statement = ""
    if known_after is not None:
        statement = f" (known after {known_after // timedelta(minutes=1)} min)"

    def batches() -> Iterator[Batch]:
        landed = landed_files(settings, kind, statement)
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
                entry = Entry(series, f"file:{path.name}{statement}", sha256)
                origin = Origin(
                    settings.exchange if kind_.is_of_exchange else None,
                    series.market,
                    entry.source,
                    datetime.now(UTC),
                    _constants(kind_, series),
                    known_after,
                )
                yield from unit(_parts(path, kind_, series, origin, symbols), entry)
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
        known = (*_KNOWN_OTHERWISE, kind.subject) if _subject(path, kind) else _KNOWN_OTHERWISE
        try:
            match_columns(kind, names, constants=known, where=path.name)
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
    intervals = [word for word in _words(path) if word in INTERVALS_US]
    return Series(
        kind.name,
        market if kind.is_of_exchange else None,
        _subject(path, kind),
        intervals[0] if intervals and kind.name in _INTERVAL_TOLD_BY else None,
    )


def _subject(path: Path, kind: Kind) -> str | None:
    """Return what a file's name says its rows are about."""
    words = _words(path)
    if kind.is_of_exchange:
        found = [word for word in words if word.isupper() and len(word) >= _SHORTEST_SYMBOL]
    else:
        names = MACRO_SERIES if kind.name == "macro_bars" else ()
        found = [word.lower() for word in words if word.lower() in names]
    return found[0] if found else None


def _is_wanted(series: Series, symbols: Sequence[str], intervals: Sequence[str]) -> bool:
    is_other_symbol = symbols and series.symbol and series.symbol not in symbols
    is_other_interval = intervals and series.interval and series.interval not in intervals
    return not is_other_symbol and not is_other_interval


def _named(
    path: Path, kind: Kind, series: Series, symbols: Sequence[str], intervals: Sequence[str]
) -> Series:
    columns = column_names(path, kind)
    names = {name.lower() for name in columns}
    if not books.is_long(columns) and not is_changes(columns):
        known = (*_KNOWN_OTHERWISE, kind.subject)
        names |= set(match_columns(kind, columns, constants=known, where=path.name))
    symbol, interval = series.symbol, series.interval
    if symbol is None and kind.subject not in names:
        symbol = _the_only(symbols, path, kind.subject)
    told_by = _INTERVAL_TOLD_BY.get(kind.name)
    if interval is None and told_by and told_by not in names:
        interval = _the_only(intervals, path, "interval")
    return Series(series.kind, series.market, symbol, interval)


def _the_only(names: Sequence[str], path: Path, what: str) -> str:
    if len(names) != 1:
        raise UnknownLayoutError(
            f"neither the columns nor the name of {path.name} tell its {what}: "
            f"name it with one --{what}"
        )
    return names[0]


def _parts(
    path: Path, kind: Kind, series: Series, origin: Origin, symbols: Sequence[str]
) -> Iterator[Checked]:
    for checked in read(path, kind, origin):
        if symbols and series.symbol is None:
            yield Checked(
                _only(checked.rows, kind.subject, symbols),
                _only(checked.rejects, "symbol", symbols),
            )
        else:
            yield checked


def _constants(kind: Kind, series: Series) -> tuple[tuple[str, str], ...]:
    known = ((kind.subject, series.symbol), ("interval", series.interval))
    return tuple((name, value) for name, value in known if value)


def _only(table: pa.Table, column: str, names: Sequence[str]) -> pa.Table:
    return table.filter(pc.is_in(table[column], pa.array(names)))


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
