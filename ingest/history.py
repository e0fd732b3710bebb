"""History of a series: archives for whole months and days that are over, REST for the rest."""

import zipfile
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

import ccxt
import pyarrow as pa

from ingest.archives import Archive, days, downloads, merge, periods, plan, republished
from ingest.batches import Batch, Entry, Series, unit
from ingest.exchange import Exchange, pages
from ingest.intervals import INTERVALS_US, check_intervals
from ingest.kind import ExchangeKind
from ingest.kinds import KINDS
from ingest.landing import land
from ingest.ledger import landed_archives, missing
from ingest.report import OnStep, Report, Step, Tally, ignore
from ingest.settings import Market, Settings
from ingest.tabular import read
from ingest.validation import Origin, UnknownLayoutError, check

Span = tuple[datetime, datetime]
SourceName = Literal["auto", "archives", "rest"]
DEFAULT_SPAN = timedelta(days=30)
_REST_KINDS = ("klines", "trades", "books", "funding", "open_interest", "mark_prices")
_FUTURES_KINDS = ("funding", "open_interest", "liquidations", "mark_prices")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class ExchangeUnreachableError(RuntimeError):
    """The exchange did not answer at all."""


def ingest_history(
    settings: Settings,
    kind: ExchangeKind,
    *,
    market: Market | None = None,
    symbols: Sequence[str] = (),
    intervals: Sequence[str] = (),
    start: datetime | None = None,
    end: datetime | None = None,
    source: SourceName = "auto",
    recheck: bool = False,
    on_step: OnStep = ignore,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> Report:
    """Land what the warehouse lacks of some series between two times.

    Parameters
    ----------
    settings : Settings
        Names the warehouse and the exchange; gives market, symbols and intervals not named here.
    kind : str
        What to ingest. Books have no history: the present one is landed.
    market, symbols, intervals
        The series; intervals are those of klines.
    start, end : datetime, optional
        UTC interval ``[start, end)``; the last 30 days up to the exchange's time by default.
    source : {"auto", "archives", "rest"}
        Auto takes archives, and REST where none is published.
    recheck : bool
        Compare what has landed of archives with the checksums published now, and land again
        what was republished; the rows that were received last count.
    on_step : callable
        Told of each archive and page before it is read.
    clock : callable
        Gives the time of arrival.

    Returns
    -------
    Report
        One line per series. What could not be had is a failure; the rest lands.

    Raises
    ------
    ValueError
        If the exchange has no such data, or ``start`` is not before ``end``.
    ExchangeUnreachableError
        If the exchange does not tell its time.
    """
    market = market or settings.market
    if kind in _FUTURES_KINDS and market == "spot":
        raise ValueError(f"{kind} exist for USD-M futures only: use --market um")
    wanted = _all_series(settings, kind, market, symbols, intervals)
    if source == "archives" and not any(periods(series) for series in wanted):
        raise ValueError(f"the exchange archives no {kind}: use --from rest")
    exchange = Exchange(settings, market)
    try:
        now = exchange.now()
    except ccxt.NetworkError as error:
        address = settings.exchange_url or f"the {settings.exchange} {market} interface"
        raise ExchangeUnreachableError(
            f"{address} does not answer: {error}. Check the network and TAPEHOUSE_EXCHANGE_URL"
        ) from error
    end = min(end or now, now)
    start = start or end - DEFAULT_SPAN
    if kind != "books" and start >= end:
        raise ValueError(f"start {start:%Y-%m-%dT%H:%MZ} is not before end {end:%Y-%m-%dT%H:%MZ}")
    run = _Run(settings, exchange, source, now, on_step, clock, recheck=recheck)
    return run.tally.report(land(settings, run.batches(wanted, start, end)))


def _all_series(
    settings: Settings,
    kind: ExchangeKind,
    market: Market,
    symbols: Sequence[str],
    intervals: Sequence[str],
) -> list[Series]:
    names = symbols or settings.symbols
    if kind != "klines":
        return [Series(kind, market, symbol) for symbol in names]
    intervals = intervals or settings.intervals
    check_intervals(intervals)
    return [Series(kind, market, symbol, interval) for symbol in names for interval in intervals]


class _Run:
    """One run's exchange, clock and counts."""

    def __init__(
        self,
        settings: Settings,
        exchange: Exchange,
        source: SourceName,
        now: datetime,
        on_step: OnStep,
        clock: Callable[[], datetime],
        *,
        recheck: bool,
    ) -> None:
        self.settings = settings
        self.exchange = exchange
        self.source = source
        self.now = now
        self.on_step = on_step
        self.clock = clock
        self.recheck = recheck
        self.tally = Tally()
        self.done = 0
        self.total = 0

    def batches(self, wanted: list[Series], start: datetime, end: datetime) -> Iterator[Batch]:
        """Yield everything that is missing of all series."""
        plans = [(series, *self._plan(series, start, end)) for series in wanted]
        self.total = sum(len(archives) + len(rest) for _, archives, rest in plans)
        for series, archives, rest in plans:
            unpublished: list[Span] = []
            yield from self._archives(archives, unpublished)
            if self.source == "archives" or series.kind not in _REST_KINDS:
                for span in merge(unpublished):
                    self.tally.fail(_name(series, *span), "no archive is published")
            else:
                yield from self._rest(series, [*rest, *unpublished])
        self.on_step(Step(self.total, self.total, "done"))

    def _plan(
        self, series: Series, start: datetime, end: datetime
    ) -> tuple[list[Archive], list[Span]]:
        self.tally.expect(series)
        if series.kind == "books":
            return [], [(self.now, self.now)]
        interval = "1m" if series.kind == "mark_prices" else series.interval
        if interval:
            end -= (end - _EPOCH) % timedelta(microseconds=INTERVALS_US[interval])
        spans = missing(self.settings, series, start, end)
        if not spans:
            self.tally.skip(series)
        if self.source == "rest":
            return [], spans
        archives = self._republished(series, start, end) if self.recheck else []
        rest: list[Span] = []
        for span in spans:
            found, outside = plan(series, *span, self.now)
            archives.extend(found)
            rest.extend(outside)
        return archives, rest

    def _republished(self, series: Series, start: datetime, end: datetime) -> list[Archive]:
        self.on_step(Step(0, 0, f"checksums of {_name(series, start, end)}"))
        landed = {
            Archive(series, "monthly" if "/monthly/" in source else "daily", first, last): sha256
            for source, first, last, sha256 in landed_archives(self.settings, series, start, end)
        }
        return republished(self.settings, landed)

    def _archives(self, archives: list[Archive], unpublished: list[Span]) -> Iterator[Batch]:
        smaller: list[Archive] = []
        for download in downloads(self.settings, archives):
            archive = download.archive
            self._step(archive.path.rsplit("/", 1)[-1])
            if download.problem:
                self.tally.fail(archive.path, download.problem)
            elif download.file:
                yield from self._file(download.file, archive, download.sha256)
            elif archive.period == "monthly" and days(archive):
                smaller.extend(days(archive))
            else:
                unpublished.append((archive.start, archive.end))
        self.total += len(smaller)
        if smaller:
            yield from self._archives(smaller, unpublished)

    def _file(self, file: Path, archive: Archive, sha256: str | None) -> Iterator[Batch]:
        source = f"archive:{archive.path}"
        entry = Entry(archive.series, source, sha256, archive.start, archive.end)
        try:
            parts = read(file, KINDS[archive.series.kind], self._origin(archive.series, source))
            yield from unit(parts, entry)
        except (UnknownLayoutError, zipfile.BadZipFile, pa.ArrowInvalid) as error:
            self.tally.fail(archive.path, str(error))

    def _rest(self, series: Series, spans: list[Span]) -> Iterator[Batch]:
        source = f"rest:{series.kind}"
        origin = self._origin(series, source)
        for start, end in merge(spans):
            name = _name(series, start, end)
            self._step(name)
            try:
                for page in pages(self.exchange, series, start, end):
                    checked = check(KINDS[series.kind], page.table, origin)
                    covered = (page.covered_from, page.covered_until)
                    yield from unit([checked], Entry(series, source, None, *covered))
            except (ccxt.NetworkError, ccxt.ExchangeError) as error:
                self.tally.fail(name, str(error))

    def _origin(self, series: Series, source: str) -> Origin:
        known = {
            "symbol": series.symbol,
            "interval": series.interval,
            "is_closed": True,
            "is_aggregate": True,
        }
        constants = tuple((name, value) for name, value in known.items() if value)
        return Origin(self.settings.exchange, series.market, source, self.clock(), constants)

    def _step(self, label: str) -> None:
        self.on_step(Step(self.done, self.total, label))
        self.done += 1


def _name(series: Series, start: datetime, end: datetime) -> str:
    parts = (series.symbol, series.kind, series.interval)
    return f"{' '.join(filter(None, parts))} {start:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M}"
