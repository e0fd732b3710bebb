"""GARCH fits: when they are made, what they see, and that the warehouse forecasts as arch does."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from arch.univariate import GARCH, ZeroMean
from bars_fixtures import KEY, SYMBOLS, Models, built, compiled, cut, random_bars, runs

from ingest import warehouse
from ingest.report import Step
from ingest.settings import Settings
from ml.garch import FEWEST_RETURNS, LARGEST_PERSISTENCE, NoBarsError, fit_garch, fitted

BARS = 4000
HOUR = timedelta(hours=1)
# random_bars start at 2025-01-31 22:10 and are one minute long.
CHOICE: dict[str, Any] = {"every": 12 * HOUR, "window": 24 * HOUR, "delay": timedelta(minutes=30)}
NOW = datetime(2025, 6, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def bars() -> pd.DataFrame:
    return random_bars(bars=BARS)


def fill(settings: Settings, bars: pd.DataFrame) -> Settings:
    with warehouse.writing(settings.database) as connection:
        connection.register("bars", bars)
        connection.execute("create or replace table int_bars as select * from bars")
    return settings


def fits_of(settings: Settings) -> pd.DataFrame:
    with warehouse.reading(settings.database) as connection:
        return (
            connection.sql(
                "select * replace (fitted_until::timestamp as fitted_until, "
                "known_at::timestamp as known_at) from raw.garch_parameters "
                "order by symbol, fitted_until"
            )
            .to_arrow_table()
            .to_pandas()
        )


def test_fits_walk_forward_at_cut_offs_that_the_data_does_not_move(bars: pd.DataFrame) -> None:
    settings = fill(Settings(), cut(bars, end=BARS * 3 // 4))
    steps: list[Step] = []
    report = fit_garch(settings, **CHOICE, clock=lambda: NOW, on_step=steps.append)
    assert report.failures == ()
    assert [(step.done, step.total) for step in steps] == [(n, 6) for n in range(7)]
    assert [
        (line.series.symbol, line.series.interval, line.row_count) for line in report.lines
    ] == [(symbol, "1m", 3) for symbol in SYMBOLS]
    first = fits_of(settings)
    times = [pd.Timestamp("2025-02-02") + number * 12 * HOUR for number in range(3)]
    assert first[["symbol", "interval_minutes", "fitted_until", "known_at"]].values.tolist() == [
        [symbol, 1, time, time + timedelta(minutes=30)] for symbol in SYMBOLS for time in times
    ]
    assert first.received_at.dt.tz_convert("UTC").unique().tolist() == [NOW]
    assert fit_garch(settings, **CHOICE).row_count == 0

    fill(settings, cut(bars, start=700))
    assert fit_garch(settings, **CHOICE).row_count == 2
    longer = fits_of(settings)
    pd.testing.assert_frame_equal(
        longer[longer.fitted_until <= times[-1]].reset_index(drop=True), first, check_exact=True
    )
    assert fit_garch(settings, **CHOICE | {"window": 36 * HOUR}).row_count > 0


def test_a_fit_sees_no_bar_that_was_not_available_at_its_cut_off(bars: pd.DataFrame) -> None:
    settings = fill(Settings(), bars)
    fit_garch(settings, **CHOICE)
    expected = fits_of(settings)
    cut_off = expected.fitted_until.max()
    late = bars.copy()
    late.loc[late.closed_at > cut_off, "close_price"] *= 3
    is_late = (late.closed_at > cut_off - HOUR) & (late.closed_at <= cut_off)
    late.loc[is_late, "available_at"] = cut_off + timedelta(seconds=1)
    for changed, same in ((late, False), (late.assign(available_at=late.closed_at), True)):
        other = fill(Settings(database=settings.database.with_name(f"{same}.duckdb")), changed)
        fit_garch(other, **CHOICE)
        found = fits_of(other)
        assert (found.omega == expected.omega).tolist() == [
            same or time != cut_off for time in expected.fitted_until
        ]


def test_only_named_bars_are_fitted_and_none_is_an_error(bars: pd.DataFrame) -> None:
    settings = Settings()
    with warehouse.writing(settings.database):
        pass
    with pytest.raises(NoBarsError, match="dbt build"):
        fit_garch(settings)
    fill(settings, bars)
    report = fit_garch(settings, symbols=SYMBOLS[:1], intervals=["1m"], **CHOICE)
    assert [line.series.symbol for line in report.lines] == SYMBOLS[:1]
    with pytest.raises(NoBarsError):
        fit_garch(settings, intervals=["1h"], **CHOICE)
    with pytest.raises(ValueError, match="interval 1y is not one of"):
        fit_garch(settings, intervals=["1y"], **CHOICE)


def test_too_few_returns_are_not_fitted_and_returns_that_do_not_vary_are_a_failure(
    bars: pd.DataFrame,
) -> None:
    few = cut(bars, end=FEWEST_RETURNS)
    assert fit_garch(fill(Settings(), few), **CHOICE).lines[0].row_count == 0
    flat = cut(bars, end=BARS // 2)
    prices = ["open_price", "high_price", "low_price", "close_price"]
    flat[prices] = flat[prices].where(flat.is_gap, 1.0)
    report = fit_garch(fill(Settings(), flat), **CHOICE)
    assert report.row_count == 0
    assert {failure.message for failure in report.failures} == {"the fit does not converge"}


def simulated(omega: float, alpha: float, beta: float) -> np.ndarray:
    """Returns of a GARCH(1,1) series, by its definition."""
    shocks = np.random.default_rng(6).standard_normal(20_000)
    returns = np.empty_like(shocks)
    variance = omega / 0.02
    for place, shock in enumerate(shocks):
        returns[place] = np.sqrt(variance) * shock
        variance = omega + alpha * returns[place] ** 2 + beta * variance
    return returns


def test_a_fit_recovers_the_parameters_of_a_simulated_series() -> None:
    fit = fitted(simulated(2e-10, 0.08, 0.9))
    assert fit is not None
    assert fit.alpha == pytest.approx(0.08, abs=0.02)
    assert fit.beta == pytest.approx(0.9, abs=0.03)
    assert fit.omega / (1 - fit.alpha - fit.beta) == pytest.approx(1e-8, rel=0.2)


def test_a_series_without_a_long_run_variance_is_fitted_with_one() -> None:
    fit = fitted(simulated(2e-10, 0.2, 0.8))
    assert fit is not None
    assert fit.alpha + fit.beta == pytest.approx(LARGEST_PERSISTENCE, abs=1e-6)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    return compiled(tmp_path_factory)


def test_the_forecast_of_the_warehouse_is_that_of_arch(
    models: Models, bars: pd.DataFrame, tmp_path: Path
) -> None:
    settings = fill(Settings(), bars)
    fit_garch(settings, **CHOICE)
    parameters = fits_of(settings).rename(columns={"known_at": "available_at"})
    # One fit of each symbol, known from the first bar on: arch has no change of parameters.
    parameters = parameters.drop_duplicates("symbol", keep="last").assign(
        fitted_until=bars.opened_at.min(), available_at=bars.opened_at.min()
    )
    given = {"int_bars": bars, "stg_garch_parameters": parameters.drop(columns="received_at")}
    forecast = built(models, "int_garch_variances", given)
    reported = bars[~bars.is_gap].sort_values(KEY)
    actual = forecast.set_index(reported.index).garch_volatility_1
    compared = 0
    for run in runs(bars):
        fit = parameters[parameters.symbol == run.symbol.iloc[0]].iloc[0]
        returns = np.log(run.close_price).diff().to_numpy()[1:] * 100
        if len(returns) < 1100:
            continue
        model = ZeroMean(returns, volatility=GARCH(1, 0, 1), rescale=False)
        fixed = model.fix([fit.omega * 1e4, fit.alpha, fit.beta])
        variances = fixed.forecast(horizon=1, start=0, reindex=False).variance.to_numpy()[:, 0]
        expected = np.sqrt(variances)[1023:] / 100
        np.testing.assert_allclose(actual[run.index[1024:]], expected, rtol=1e-9)
        compared += len(expected)
    assert compared > 2 * 1000
