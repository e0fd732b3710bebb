"""GARCH(1,1) fits, walking forward: parameters that the warehouse's own recursion takes up.

Bollerslev 1986: the variance of the next log return is omega + alpha r² + beta times the last one.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib.metadata import version

import numpy as np
import pyarrow as pa
from arch.univariate import GARCH, ZeroMean
from numpy.typing import NDArray

from ingest import warehouse
from ingest.batches import Batch, Entry, Series, unit
from ingest.intervals import INTERVALS_US, MINUTE_US, check_intervals
from ingest.kinds import KINDS
from ingest.landing import land
from ingest.report import OnStep, Report, Step, Tally, ignore
from ingest.settings import Market, Settings
from ingest.validation import Origin, check

EVERY = timedelta(days=30)
WINDOW = timedelta(days=90)
DELAY = timedelta(days=1)
FEWEST_RETURNS = 1000
# Crypto bars often fit best at alpha + beta = 1, where there is no long-run variance to start from.
LARGEST_PERSISTENCE = 0.999
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class NoBarsError(RuntimeError):
    """The warehouse has no bars to fit to."""


@dataclass(frozen=True)
class Fit:
    """Parameters of log returns as fractions, as in ``raw.garch_parameters``."""

    omega: float
    alpha: float
    beta: float


@dataclass(frozen=True)
class _Bars:
    """A series of int_bars, and when its first bar opened and its last closed, UTC."""

    market: Market
    symbol: str
    interval_minutes: int
    opened_at: datetime
    closed_at: datetime

    @property
    def series(self) -> Series:
        interval = next(
            name for name, us in INTERVALS_US.items() if us == self.interval_minutes * MINUTE_US
        )
        return Series("garch_parameters", self.market, self.symbol, interval)


class _Stationary(GARCH):
    """GARCH(1,1) with a long-run variance."""

    def constraints(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        matrix, bounds = super().constraints()
        bounds[-1] = -LARGEST_PERSISTENCE
        return matrix, bounds


def fit_garch(
    settings: Settings,
    *,
    symbols: Sequence[str] = (),
    intervals: Sequence[str] = (),
    every: timedelta = EVERY,
    window: timedelta = WINDOW,
    delay: timedelta = DELAY,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    on_step: OnStep = ignore,
) -> Report:
    """Fit GARCH(1,1) to the bars before each of a row of cut-offs, and land the parameters.

    Cut-offs are the multiples of ``every`` since 1970-01-01 UTC, so they do not depend on where
    the data starts. A fit sees the bars that were available at its cut-off and closed within
    ``window`` before it; returns over gaps are left out. Its parameters count as known ``delay``
    after the cut-off, for history as for fits made as time goes by: run this more often than
    that, or state a longer delay.

    Parameters
    ----------
    settings : Settings
        Names the warehouse and the exchange.
    symbols, intervals : sequence of str
        Of which bars; all of the exchange in ``int_bars`` by default.
    every, window, delay : timedelta
        Time between cut-offs, before one, and after one.
    clock : callable
        Gives the UTC time of arrival.
    on_step : callable
        Told of each fit before it is made.

    Returns
    -------
    Report
        One line per series; a fit that landed before with the same window and delay is skipped.
        A cut-off with fewer than 1,000 returns has no fit; one that does not converge is a
        failure.

    Raises
    ------
    ValueError
        If an interval is unknown.
    NoBarsError
        If there are no bars of these symbols and intervals.
    ingest.warehouse.WarehouseMissingError, ingest.warehouse.WarehouseBusyError
        If there is no warehouse file, or another process keeps it.
    """
    check_intervals(intervals)
    source = (
        f"arch {version('arch')} over {window // timedelta(hours=1)} h, "
        f"known after {delay // timedelta(minutes=1)} min"
    )
    chosen = _bars(settings, symbols, intervals)
    plans = [(bars, _missing(settings, bars, every, source)) for bars in chosen]
    total = sum(len(cut_offs) for _, cut_offs in plans)
    tally = Tally()

    def landed() -> Iterator[Batch]:
        done = 0
        for bars, cut_offs in plans:
            tally.expect(bars.series)
            fits = _fits(settings, bars, cut_offs, window, delay, source, clock, tally, step)
            # Series by series, so that a long run that is killed has not fitted in vain.
            yield from land(settings, fits)
            done += len(cut_offs)
        on_step(Step(total, total, "done"))

    made = 0

    def step(label: str) -> None:
        nonlocal made
        on_step(Step(made, total, label))
        made += 1

    return tally.report(landed())


def fitted(returns: NDArray[np.float64]) -> Fit | None:
    """Fit GARCH(1,1) with normal shocks and zero mean.

    Parameters
    ----------
    returns : ndarray of shape (n,)
        Log returns as fractions, oldest first.

    Returns
    -------
    Fit or None
        None where the returns do not vary or the fit does not converge.
    """
    scale = float(returns.std())
    if not scale > 0:
        return None
    model = ZeroMean(returns / scale, volatility=_Stationary(p=1, o=0, q=1), rescale=False)
    result = model.fit(disp="off", show_warning=False)
    if result.convergence_flag:
        # Stuck at the border of what is stationary: once more, from inside it.
        inside = result.params.to_numpy() * (1, 0.98, 0.98)
        result = model.fit(disp="off", show_warning=False, starting_values=inside)
    omega, alpha, beta = (float(value) for value in result.params)
    if result.convergence_flag or not omega > 0:
        return None
    return Fit(omega * scale**2, max(alpha, 0.0), max(beta, 0.0))


def _fits(
    settings: Settings,
    bars: _Bars,
    cut_offs: list[datetime],
    window: timedelta,
    delay: timedelta,
    source: str,
    clock: Callable[[], datetime],
    tally: Tally,
    step: Callable[[str], None],
) -> Iterator[Batch]:
    for cut_off in cut_offs:
        name = f"{bars.symbol} {bars.series.interval} {cut_off:%Y-%m-%d}"
        step(name)
        returns = _returns(settings, bars, cut_off - window, cut_off)
        if len(returns) < FEWEST_RETURNS:
            continue
        fit = fitted(returns)
        if fit is None:
            tally.fail(name, "the fit does not converge")
            continue
        table = pa.table(
            {
                "symbol": [bars.symbol],
                "interval_minutes": [bars.interval_minutes],
                "omega": [fit.omega],
                "alpha": [fit.alpha],
                "beta": [fit.beta],
                "fitted_until": pa.array([cut_off], pa.timestamp("us", "UTC")),
                "known_at": pa.array([cut_off + delay], pa.timestamp("us", "UTC")),
            }
        )
        origin = Origin(settings.exchange, bars.market, source, clock())
        checked = check(KINDS["garch_parameters"], table, origin)
        yield from unit([checked], Entry(bars.series, source))


def _bars(settings: Settings, symbols: Sequence[str], intervals: Sequence[str]) -> list[_Bars]:
    minutes = [INTERVALS_US[interval] // MINUTE_US for interval in intervals]
    with warehouse.reading(settings.database, timeout_s=settings.writer_timeout_s) as connection:
        has_bars = connection.execute(
            "select count(*) from information_schema.tables "
            "where table_schema = 'main' and table_name = 'int_bars'"
        ).fetchall() == [(1,)]
        found = (
            connection.execute(
                """
                select
                    market, symbol, interval_minutes,
                    min(opened_at) at time zone 'UTC', max(closed_at) at time zone 'UTC'
                from int_bars
                where
                    exchange = $exchange
                    and (len($symbols::varchar[]) = 0 or symbol in $symbols::varchar[])
                    and (len($minutes::integer[]) = 0 or interval_minutes in $minutes::integer[])
                group by all
                order by all
                """,
                {"exchange": settings.exchange, "symbols": list(symbols), "minutes": minutes},
            ).fetchall()
            if has_bars
            else []
        )
    if not found:
        raise NoBarsError(
            f"{settings.database} has no such bars: run `dbt build --project-dir dbt_project` first"
        )
    return [
        _Bars(market, symbol, minutes, opened_at.astimezone(UTC), closed_at.astimezone(UTC))
        for market, symbol, minutes, opened_at, closed_at in found
    ]


def _missing(settings: Settings, bars: _Bars, every: timedelta, source: str) -> list[datetime]:
    """Return the cut-offs that the bars reach and that were not fitted alike before."""
    with warehouse.reading(settings.database, timeout_s=settings.writer_timeout_s) as connection:
        rows = connection.execute(
            """
            select distinct epoch_us(fitted_until)
            from raw.garch_parameters
            where
                exchange = ? and market = ? and symbol = ? and interval_minutes = ? and source = ?
            """,
            [settings.exchange, bars.market, bars.symbol, bars.interval_minutes, source],
        ).fetchall()
    landed = {_EPOCH + timedelta(microseconds=microseconds) for (microseconds,) in rows}
    first = bars.opened_at + FEWEST_RETURNS * timedelta(minutes=bars.interval_minutes)
    cut_offs = []
    cut_off = _EPOCH + -(-(first - _EPOCH) // every) * every
    while cut_off <= bars.closed_at:
        if cut_off not in landed:
            cut_offs.append(cut_off)
        cut_off += every
    return cut_offs


def _returns(
    settings: Settings, bars: _Bars, start: datetime, end: datetime
) -> NDArray[np.float64]:
    with warehouse.reading(settings.database, timeout_s=settings.writer_timeout_s) as connection:
        found = connection.execute(
            """
            with bars as (
                select
                    opened_at, bars_in_run,
                    ln(close_price / lag(close_price) over (order by opened_at)) as log_return
                from int_bars
                where
                    exchange = ? and market = ? and symbol = ? and interval_minutes = ?
                    and closed_at > ? and closed_at <= ? and available_at <= ?
                    and not is_gap
            )
            select log_return from bars
            where bars_in_run > 1 and log_return is not null
            order by opened_at
            """,
            [
                *(settings.exchange, bars.market, bars.symbol, bars.interval_minutes),
                *(time.replace(tzinfo=None) for time in (start, end, end)),
            ],
        ).fetchnumpy()["log_return"]
    return np.asarray(found, dtype=np.float64)
