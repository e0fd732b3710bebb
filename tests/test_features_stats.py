"""Statistics of returns against NumPy, pandas, SciPy and plain loops."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from scipy import linalg

from tests.bars_fixtures import (
    KEY,
    SYMBOLS,
    Models,
    built,
    compiled,
    cut,
    random_bars,
    recorded_bars,
    runs,
)

BARS = 3000
LEVELS = [0.1, 0.25, 0.5, 0.75, 0.9]
SCALES = [1, 2, 4, 8, 16, 32]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    return compiled(tmp_path_factory)


@pytest.fixture(scope="module")
def bars() -> pd.DataFrame:
    return random_bars(bars=BARS)


def fitted_parameters(bars: pd.DataFrame) -> pd.DataFrame:
    """One fit before all bars, one known halfway, and one that comes too late to be of use."""
    first, middle, last = bars.opened_at.quantile([0.0, 0.6, 1.0])
    fits = pd.DataFrame(
        {
            "omega": [2e-7, 1e-7, 1e-6],
            "alpha": [0.08, 0.15, 0.5],
            "beta": [0.9, 0.8, 0.1],
            "fitted_until": [first - pd.Timedelta(days=2), first, first],
            "available_at": [first - pd.Timedelta(days=1), middle, last + pd.Timedelta(days=9)],
        }
    )
    keys = bars[["exchange", "market", "symbol", "interval_minutes"]].drop_duplicates()
    return keys.merge(fits, how="cross")


def features_of(models: Models, bars: pd.DataFrame, parameters: pd.DataFrame) -> pd.DataFrame:
    given = {"int_bars": bars, "stg_garch_parameters": parameters}
    return built(models, "feat_stats", given)


@pytest.fixture(scope="module")
def parameters(bars: pd.DataFrame) -> pd.DataFrame:
    return fitted_parameters(bars)


@pytest.fixture(scope="module")
def features(models: Models, bars: pd.DataFrame, parameters: pd.DataFrame) -> pd.DataFrame:
    return features_of(models, bars, parameters)


def autocorrelations(returns: np.ndarray) -> np.ndarray:
    centred = returns - returns.mean()
    lagged = [centred[lag:] @ centred[: len(centred) - lag] for lag in range(11)]
    return np.array(lagged) / lagged[0]


def partial_autocorrelations(correlations: np.ndarray) -> list[float]:
    """The last coefficient of each Yule-Walker system, solved as it stands."""
    return [
        linalg.solve(linalg.toeplitz(correlations[:order]), correlations[1 : order + 1])[-1]
        for order in range(1, 6)
    ]


def hurst(returns: np.ndarray) -> float:
    variances = [returns.reshape(-1, scale).mean(axis=1).var(ddof=1) for scale in SCALES]
    return 1 + np.polyfit(np.log(SCALES), np.log(variances), 1)[0] / 2


def garch_volatility(fits: pd.DataFrame, squares: np.ndarray, *, end: int) -> float:
    """The recursion over the last 1024 returns, from the long-run variance in force now."""
    omega, alpha, beta = fits[["omega", "alpha", "beta"]].to_numpy()[end - 1024 : end].T
    variance = omega[-1] / (1 - alpha[-1] - beta[-1])
    for place, square in enumerate(squares[end - 1024 : end]):
        variance = omega[place] + alpha[place] * square + beta[place] * variance
    return float(np.sqrt(variance))


def windows(run: pd.DataFrame) -> pd.DataFrame:
    """Statistics of one run by pandas and NumPy, window by window."""
    close = run.close_price.reset_index(drop=True)
    returns = np.log(close / close.shift())
    expected = {}
    for length in (20, 60, 240):
        rolling = returns.rolling(length)
        tail = [returns.to_numpy()[end - length : end] for end in range(length + 1, len(run) + 1)]
        blank = [np.nan] * min(length, len(run))
        expected |= {
            f"log_return_mean_{length}": rolling.mean(),
            f"log_return_std_{length}": rolling.std(),
            f"log_return_skew_{length}": [*blank, *(pd.Series(part).skew() for part in tail)],
            f"log_return_kurtosis_{length}": [*blank, *(pd.Series(part).kurt() for part in tail)],
            f"log_return_zscore_{length}": (returns - rolling.mean()) / rolling.std(),
            f"trend_strength_{length}": rolling.sum().abs() / returns.abs().rolling(length).sum(),
        }
        for level in LEVELS:
            expected[f"log_return_q{level * 100:.0f}_{length}"] = rolling.quantile(level)
    expected["sharpe_60"] = returns.rolling(60).mean() / returns.rolling(60).std()
    for length in (12, 60, 288):
        expected[f"realised_volatility_{length}"] = np.sqrt((returns**2).rolling(length).sum())
    high, low = np.log(run.high_price), np.log(run.low_price)
    log_range = (high - low).reset_index(drop=True)
    body = (np.log(run.close_price) - np.log(run.open_price)).reset_index(drop=True)
    parkinson = log_range**2 / (4 * np.log(2))
    garman_klass = 0.5 * log_range**2 - (2 * np.log(2) - 1) * body**2
    for length in (20, 60):
        expected[f"parkinson_volatility_{length}"] = np.sqrt(parkinson.rolling(length).mean())
        expected[f"garman_klass_volatility_{length}"] = np.sqrt(garman_klass.rolling(length).mean())
    expected["drawdown_288"] = close / close.rolling(288).max() - 1
    correlations = [
        autocorrelations(returns.to_numpy()[end - 100 : end]) for end in range(101, len(run) + 1)
    ]
    blank = [np.nan] * min(100, len(run))
    for lag in range(1, 11):
        expected[f"log_return_autocorrelation_{lag}"] = [
            *blank,
            *(part[lag] for part in correlations),
        ]
    partial = [partial_autocorrelations(part) for part in correlations]
    for lag in range(1, 6):
        expected[f"log_return_partial_autocorrelation_{lag}"] = [
            *blank,
            *(part[lag - 1] for part in partial),
        ]
    expected["hurst_256"] = [
        *[np.nan] * min(256, len(run)),
        *(hurst(returns.to_numpy()[end - 256 : end]) for end in range(257, len(run) + 1)),
    ]
    return pd.DataFrame({name: np.asarray(value) for name, value in expected.items()}, run.index)


def aligned(bars: pd.DataFrame, features: pd.DataFrame) -> pd.DataFrame:
    """The features with the index of the reported bars."""
    reported = bars[~bars.is_gap].sort_values(KEY)
    assert features[KEY].to_numpy().tolist() == reported[KEY].to_numpy().tolist()
    return features.set_index(reported.index).sort_index()


def assert_equal(actual: pd.DataFrame, expected: pd.DataFrame) -> None:
    for column in expected:
        # Of order 1, or of the size of a return.
        scale = actual[column].abs().mean()
        np.testing.assert_allclose(
            actual[column].to_numpy(dtype=float),
            expected[column].to_numpy(dtype=float),
            rtol=1e-9,
            atol=1e-9 * scale,
            err_msg=str(column),
        )


def test_statistics_equal_those_of_pandas_and_numpy(
    bars: pd.DataFrame, features: pd.DataFrame
) -> None:
    expected = pd.concat([windows(run) for run in runs(bars)]).sort_index()
    assert_equal(aligned(bars, features), expected)
    assert set(features) - set(expected) == {*KEY, "available_at", "garch_volatility_1"}
    assert expected.notna().sum().min() > BARS


def test_recorded_bars_give_the_statistics_of_pandas_and_numpy(
    models: Models, shared_data: Path
) -> None:
    path = shared_data / "spot" / "klines_ETHUSDT_15m.parquet"
    bars = recorded_bars(path, symbol="ETHUSDT", interval_minutes=15, rows=1500)
    actual = aligned(bars, features_of(models, bars, fitted_parameters(bars)))
    assert_equal(actual, pd.concat([windows(run) for run in runs(bars)]).sort_index())


def test_the_garch_forecast_equals_the_recursion_with_the_parameters_of_the_time(
    bars: pd.DataFrame, features: pd.DataFrame, parameters: pd.DataFrame
) -> None:
    actual = aligned(bars, features).garch_volatility_1
    full = [run for run in runs(bars) if len(run) > 1024]
    assert sorted(run.symbol.iloc[0] for run in full) == SYMBOLS
    for run in full:
        assert actual[run.index].notna().tolist() == [False] * 1024 + [True] * (len(run) - 1024)
        own = parameters[parameters.symbol == run.symbol.iloc[0]].sort_values("available_at")
        fits = pd.merge_asof(run[["available_at"]], own, on="available_at")
        assert fits.beta.nunique() == 2
        squares = (np.log(run.close_price).diff() ** 2).to_numpy()
        for end in range(1025, len(run) + 1):
            expected = garch_volatility(fits, squares, end=end)
            assert actual[run.index[end - 1]] == pytest.approx(expected, rel=1e-9)
    assert actual.notna().sum() == sum(len(run) - 1024 for run in full)


def test_stale_parameters_forecast_nothing(
    models: Models, bars: pd.DataFrame, parameters: pd.DataFrame
) -> None:
    old = parameters.assign(fitted_until=parameters.fitted_until - pd.Timedelta(days=100))
    assert features_of(models, bars, old).garch_volatility_1.isna().all()


def test_a_bar_after_the_cut_changes_no_statistic_before_it(
    models: Models, bars: pd.DataFrame, parameters: pd.DataFrame, features: pd.DataFrame
) -> None:
    early_bars = cut(bars, end=BARS * 3 // 4)
    known = parameters[parameters.available_at <= early_bars.available_at.max()]
    earlier = features_of(models, early_bars, known)
    assert earlier.symbol.unique().tolist() == SYMBOLS
    pd.testing.assert_frame_equal(features.merge(earlier[KEY]), earlier, check_exact=True)


def test_starting_later_changes_no_bit_once_the_look_back_is_over(
    models: Models,
    bars: pd.DataFrame,
    parameters: pd.DataFrame,
    features: pd.DataFrame,
    project_root: Path,
) -> None:
    described = yaml.safe_load(
        (project_root / "dbt_project/models/features/feat_stats.yml").read_text()
    )["models"][0]
    later = features_of(models, cut(bars, start=BARS // 3 + 7), parameters)
    number = later.groupby("symbol").cumcount()
    windows = [column["config"]["meta"]["window_bars"] for column in described["columns"][6:]]
    later = later[number >= max(windows)].reset_index(drop=True)
    assert len(later) > 1000
    pd.testing.assert_frame_equal(features.merge(later[KEY]), later, check_exact=True)


def test_a_flat_price_has_no_spread_and_no_shape(models: Models, bars: pd.DataFrame) -> None:
    flat = bars.copy()
    prices = ["open_price", "high_price", "low_price", "close_price"]
    flat[prices] = flat[prices].where(flat.is_gap, 0.1)
    last = features_of(models, flat, fitted_parameters(flat)).groupby("symbol").last()
    zero = [
        "log_return_std_60",
        "realised_volatility_288",
        "parkinson_volatility_20",
        "drawdown_288",
    ]
    assert last[zero].to_numpy().tolist() == [[0] * 4] * 2
    unknown = ["log_return_zscore_20", "log_return_skew_60", "log_return_autocorrelation_1"]
    unknown += [
        "log_return_partial_autocorrelation_5",
        "hurst_256",
        "sharpe_60",
        "trend_strength_20",
    ]
    assert last[unknown].isna().all(axis=None)
