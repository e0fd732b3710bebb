"""Alpha158 against its plain definition in pandas, its bounded look-back and its configuration.

The oracle applies NumPy to each window on its own: pandas' built-in rolling moments carry rounding
from bar to bar, which on a price with a small deviation costs more digits than these tests allow.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pytest
from dbt_fixtures import run_dbt

ROOT = Path(__file__).resolve().parents[1]
START = pd.Timestamp("2025-01-31 22:00", tz="UTC")
SYMBOLS = ["BTCUSDT", "ETHUSDT"]
WINDOWS = [5, 10, 20, 30, 60]
LOOKBACK = 61
KEY = ["exchange", "market", "symbol", "interval_minutes", "opened_at"]


def random_klines(symbol: str, *, bars: int, seed: int) -> pd.DataFrame:
    """A random walk on a tick of 0.1: ties, constant stretches, bars without volume, a gap."""
    generator = np.random.default_rng(seed)
    close = np.round(1000 + generator.normal(0, 0.4, bars).cumsum(), 1)
    volume = np.round(generator.exponential(10.0, bars), 3)
    volume[generator.uniform(size=bars) < 0.1] = 0
    close[200:270] = close[200]
    volume[230:300] = 2.5
    volume[330:340] = 0
    opened = np.concatenate([close[:1], close[:-1]])
    spread = np.round(generator.exponential(0.3, (2, bars)), 1)
    frame = pd.DataFrame(
        {
            "exchange": "binance",
            "market": "um",
            "symbol": symbol,
            "interval": "1m",
            "open_time": pd.date_range(START, periods=bars, freq="min"),
            "open": opened,
            "high": np.maximum(opened, close) + spread[0],
            "low": np.minimum(opened, close) - spread[1],
            "close": close,
            "volume": volume,
            "quote_volume": volume * (opened + close) / 2,
        }
    )
    return frame.drop(index=frame.index[400:407])


def recorded_klines(path: Path) -> pd.DataFrame:
    """The last 300 bars of a recorded file."""
    frame = pd.read_parquet(path).sort_values("open_time").tail(300)
    return pd.DataFrame(
        {
            "exchange": "binance",
            "market": "um",
            "symbol": path.stem.split("_")[1],
            "interval": "1m",
            "open_time": pd.to_datetime(frame["open_time"], unit="ms", utc=True),
            **{name: frame[name] for name in ("open", "high", "low", "close", "volume")},
            "quote_volume": frame["quote_volume"],
        }
    )


def built(name: str, klines: pd.DataFrame, working: Path) -> pd.DataFrame:
    """The features of klines, with the columns of their bars, in order of time."""
    database = working / "tapehouse.duckdb"
    frame = klines.assign(is_closed=True, source="archive", received_at=START).sample(
        frac=1, random_state=1
    )
    with duckdb.connect(database) as connection:
        connection.execute("set timezone = 'UTC'")
        connection.execute((ROOT / "ingest" / "raw.sql").read_text())
        connection.register("frame", frame)
        connection.execute("insert into raw.klines by name select * from frame")
    variables = "{interval_minutes: [1, 5], alpha158_interval_minutes: [1]}"
    run_dbt(database, "run", "--select", "+feat_alpha158", "--vars", variables)
    kept = database.rename(working / f"{name}.duckdb")
    with duckdb.connect(kept, read_only=True) as connection:
        return connection.execute(
            f"""
            select bars.*, features.* exclude ({", ".join(KEY)}, available_at)
            from int_bars as bars
            left join feat_alpha158 as features using ({", ".join(KEY)})
            where interval_minutes = 1
            order by symbol, opened_at
            """
        ).df()


@pytest.fixture(scope="module")
def working(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("alpha158")


@pytest.fixture(scope="module")
def klines() -> pd.DataFrame:
    return pd.concat(
        [random_klines(symbol, bars=560, seed=seed) for seed, symbol in enumerate(SYMBOLS)]
    )


@pytest.fixture(scope="module")
def whole(klines: pd.DataFrame, working: Path) -> pd.DataFrame:
    return built("whole", klines, working)


def runs(bars: pd.DataFrame) -> Iterator[pd.DataFrame]:
    """The stretches of bars without a gap, symbol by symbol."""
    for _, series in bars.groupby("symbol"):
        reported = series[~series.is_gap]
        for _, run in reported.groupby(series.is_gap.cumsum()[~series.is_gap]):
            yield run.reset_index(drop=True)


def over(bars: int, function: Callable[..., float], *columns: pd.Series) -> pd.Series:
    """A function of the window's complete rows, NaN where there are fewer than two."""
    table = np.column_stack([column.to_numpy(dtype=float) for column in columns])
    results = []
    for end in range(1, len(table) + 1):
        window = table[max(0, end - bars) : end]
        window = window[np.isfinite(window).all(axis=1)]
        results.append(function(*window.T) if len(window) > 1 else np.nan)
    return pd.Series(results)


def correlation(left: np.ndarray, right: np.ndarray) -> float:
    if np.ptp(left) == 0 or np.ptp(right) == 0:
        return np.nan
    left, right = left - left[0], right - right[0]
    left, right = left - left.mean(), right - right.mean()
    return left @ right / np.sqrt(left @ left) / np.sqrt(right @ right)


def slope(values: np.ndarray) -> float:
    return np.polynomial.polynomial.polyfit(np.arange(len(values)), values - values[0], 1)[1]


def residual(values: np.ndarray) -> float:
    line = np.polynomial.polynomial.polyfit(np.arange(len(values)), values - values[0], 1)
    return values[-1] - values[0] - line[0] - line[1] * (len(values) - 1)


def squared_correlation_with_time(values: np.ndarray) -> float:
    return correlation(values, np.arange(len(values))) ** 2


def standard_deviation(values: np.ndarray) -> float:
    return float(np.std(values - values[0], ddof=1))


def alpha158(run: pd.DataFrame) -> pd.DataFrame:
    """Qlib's expressions on one run of bars."""
    o, c, v = run["open_price"], run["close_price"], run["volume"]
    high, low = run["high_price"], run["low_price"]
    top, bottom, full = np.maximum(o, c), np.minimum(o, c), high - low + 1e-12
    features = {
        "kmid": (c - o) / o,
        "klen": (high - low) / o,
        "kmid2": (c - o) / full,
        "kup": (high - top) / o,
        "kup2": (high - top) / full,
        "klow": (bottom - low) / o,
        "klow2": (bottom - low) / full,
        "ksft": (2 * c - high - low) / o,
        "ksft2": (2 * c - high - low) / full,
        "open0": o / c,
        "high0": high / c,
        "low0": low / c,
        "vwap0": (run["quote_volume"] / v.where(v > 0)) / c,
    }
    with np.errstate(divide="ignore", invalid="ignore"):
        volume_ratio = np.log(v / v.shift(1) + 1)
    weighted = (c / c.shift(1) - 1).abs() * v
    rise, fall = (c > c.shift(1)).astype(float), (c < c.shift(1)).astype(float)
    gain, loss = (c - c.shift(1)).clip(lower=0), (c.shift(1) - c).clip(lower=0)
    volume_gain, volume_loss = (v - v.shift(1)).clip(lower=0), (v.shift(1) - v).clip(lower=0)
    for d in WINDOWS:

        def rolling(values: pd.Series, d: int = d) -> "pd.api.typing.Rolling":
            return values.rolling(d, min_periods=1)

        def total(values: pd.Series, d: int = d) -> pd.Series:
            return values.rolling(d, min_periods=1).apply(np.nansum, raw=True)

        highest, lowest = rolling(high).max(), rolling(low).min()
        highest_at = rolling(high).apply(lambda values: values.argmax() + 1, raw=True)
        lowest_at = rolling(low).apply(lambda values: values.argmin() + 1, raw=True)
        move, volume_move = total((c - c.shift(1)).abs()), total((v - v.shift(1)).abs())
        features |= {
            f"roc{d}": c.shift(d) / c,
            f"ma{d}": rolling(c).mean() / c,
            f"std{d}": over(d, standard_deviation, c) / c,
            f"beta{d}": over(d, slope, c) / c,
            f"rsqr{d}": over(d, squared_correlation_with_time, c),
            f"resi{d}": over(d, residual, c) / c,
            f"max{d}": highest / c,
            f"min{d}": lowest / c,
            f"qtlu{d}": rolling(c).quantile(0.8) / c,
            f"qtld{d}": rolling(c).quantile(0.2) / c,
            f"rank{d}": rolling(c).rank(pct=True),
            f"rsv{d}": (c - lowest) / (highest - lowest + 1e-12),
            f"imax{d}": highest_at / d,
            f"imin{d}": lowest_at / d,
            f"imxd{d}": (highest_at - lowest_at) / d,
            f"corr{d}": over(d, correlation, c, np.log(v + 1)),
            f"cord{d}": over(d, correlation, c / c.shift(1), volume_ratio),
            f"cntp{d}": rolling(rise).mean(),
            f"cntn{d}": rolling(fall).mean(),
            f"cntd{d}": rolling(rise).mean() - rolling(fall).mean(),
            f"sump{d}": total(gain) / (move + 1e-12),
            f"sumn{d}": total(loss) / (move + 1e-12),
            f"sumd{d}": (total(gain) - total(loss)) / (move + 1e-12),
            f"vma{d}": rolling(v).apply(np.mean, raw=True) / (v + 1e-12),
            f"vstd{d}": over(d, standard_deviation, v) / (v + 1e-12),
            f"wvma{d}": over(d, standard_deviation, weighted)
            / (rolling(weighted).apply(np.nanmean, raw=True) + 1e-12),
            f"vsump{d}": total(volume_gain) / (volume_move + 1e-12),
            f"vsumn{d}": total(volume_loss) / (volume_move + 1e-12),
            f"vsumd{d}": (total(volume_gain) - total(volume_loss)) / (volume_move + 1e-12),
        }
    return pd.DataFrame(features)


def assert_alpha158(bars: pd.DataFrame) -> None:
    """Compare every column of every run to 1e-9, with a slack where a value may cancel to 0."""
    for run in runs(bars):
        expected = alpha158(run)
        assert len(expected.columns) == 158
        for column in expected:
            np.testing.assert_allclose(
                run[column].to_numpy(dtype=float),
                expected[column].to_numpy(dtype=float),
                rtol=1e-9,
                atol=1e-13,
                err_msg=f"{column} of {run.symbol[0]} from {run.opened_at[0]}",
            )


def test_every_column_equals_the_plain_definition_on_random_bars(whole: pd.DataFrame) -> None:
    assert [len(run) for run in runs(whole)] == [400, 153] * 2
    assert_alpha158(whole)


def test_every_column_equals_the_plain_definition_on_recorded_bars(
    shared_data: Path, working: Path
) -> None:
    files = [
        shared_data / "um" / f"klines_{symbol}_1m.parquet" for symbol in ("BTCUSDT", "XRPUSDT")
    ]
    recorded = built("recorded", pd.concat(map(recorded_klines, files)), working)
    assert [len(run) for run in runs(recorded)] == [300, 300]
    assert_alpha158(recorded)


def test_a_value_depends_on_its_look_back_alone_to_the_last_bit(
    klines: pd.DataFrame, whole: pd.DataFrame, working: Path
) -> None:
    first, last = START + pd.Timedelta(minutes=90), START + pd.Timedelta(minutes=470)
    part = built("part", klines[klines.open_time.between(first, last)], working)
    merged = part.merge(whole, on=KEY, suffixes=("", "_of_whole"))
    assert len(merged) == len(part)
    settled = (merged.bars_in_run >= LOOKBACK) | (merged.bars_in_run == merged.bars_in_run_of_whole)
    rows = merged[settled]
    assert len(rows) == len(part) - 2 * (LOOKBACK - 1)
    columns = list(part.columns[part.columns.get_loc("kmid") :])
    assert len(columns) == 158
    different = [
        name for name in columns if not rows[name].equals(rows[f"{name}_of_whole"].rename(name))
    ]
    assert different == []


def test_the_form_for_sorted_rows_equals_the_portable_one_to_the_last_bit(
    whole: pd.DataFrame, working: Path
) -> None:
    compiled = working / "target" / "compiled" / "tapehouse" / "models" / "intermediate"
    series = "partition by exchange, market, symbol, interval_minutes order by opened_at"
    compared = []
    with duckdb.connect(working / "whole.duckdb", read_only=True) as connection:
        for path in sorted(compiled.glob("int_alpha158_*.sql")):
            query = path.read_text().replace('"tapehouse"."main".', "")
            if "over ()" in query:
                portable = query.replace("over ()", f"over ({series})")
                difference = f"select count(*) from (({portable}) except all (from {path.stem}))"
                compared.append((path.stem, connection.execute(difference).fetchone()))
    parts = ["bars", "changes", "extremes", "levels", "ranks", "volumes"]
    assert compared == [(f"int_alpha158_{part}", (0,)) for part in parts]
