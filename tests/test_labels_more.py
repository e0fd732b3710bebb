"""Scaled, class, adaptive and triple-barrier labels against loops over the next bars."""

from itertools import chain
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.bars_fixtures import (
    KEY,
    SYMBOLS,
    Models,
    built,
    compiled,
    cut,
    random_bars,
    recorded_bars,
)

HORIZONS = [5, 10, 20, 40]
BARRIERS = [(15, 2), (30, 4), (50, 12), (100, 24)]
FAMILIES = ["lbl_return_class", "lbl_return_over_vol", "lbl_adaptive", "lbl_triple_barrier"]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    return compiled(tmp_path_factory)


@pytest.fixture(scope="module")
def bars() -> pd.DataFrame:
    return random_bars(bars=700)


@pytest.fixture(scope="module")
def many_bars() -> pd.DataFrame:
    return random_bars(bars=1700)


def average_ranges(bars: pd.DataFrame) -> pd.DataFrame:
    """A random `atr_pct_14`, unknown for the first bars after each gap."""
    reported = bars[~bars.is_gap]
    values = np.random.default_rng(4).lognormal(0, 0.5, len(reported))
    frame = reported[KEY].assign(atr_pct_14=values)
    return frame.assign(atr_pct_14=frame.atr_pct_14.where(reported.bars_in_run > 13))


def label(models: Models, name: str, bars: pd.DataFrame, ranges: pd.DataFrame) -> pd.DataFrame:
    return built(models, name, {"int_bars": bars, "int_bar_averages": ranges})


def ahead(bars: pd.DataFrame, row: int, horizon: int) -> pd.DataFrame | None:
    """The next bars of the same symbol, None where one is missing or has not closed."""
    rows = bars.iloc[row : row + horizon + 1]
    whole = len(rows) == horizon + 1 and rows.symbol.nunique() == 1 and not rows.is_gap.any()
    return rows.iloc[1:] if whole else None


def first(passed: pd.Series) -> int:
    return int(np.argmax(passed)) + 1 if passed.any() else len(passed) + 1


def barrier(rows: pd.DataFrame, up: float, down: float, *, is_up: bool) -> bool | None:
    """Whether the wanted barrier is passed before the other; None at a tie."""
    upper, lower = first(rows.high_price > up), first(rows.low_price < down)
    wanted, other = (upper, lower) if is_up else (lower, upper)
    if wanted > len(rows):
        return False
    return None if wanted == other else wanted < other


def deviations(bars: pd.DataFrame) -> pd.Series:
    returns = bars.groupby("symbol").close_price.pct_change(fill_method=None)
    return returns.groupby(bars.symbol).transform(lambda values: values.rolling(20).std(ddof=1))


def assert_same(actual: pd.DataFrame, expected: pd.DataFrame) -> None:
    for name in expected:
        assert [plain(value) for value in actual[name]] == [
            plain(value) for value in expected[name]
        ], name


def plain(value: object) -> object:
    if value is None or pd.isna(value):
        return None
    if isinstance(value, float | np.floating):
        return pytest.approx(float(value), rel=1e-9, abs=1e-12)
    return value


def plain_return_labels(bars: pd.DataFrame) -> pd.DataFrame:
    rows = []
    deviation = deviations(bars)
    for row in np.flatnonzero(~bars.is_gap):
        close, labels, signs = bars.close_price.iloc[row], {}, []
        for horizon in HORIZONS:
            window = ahead(bars, row, horizon)
            change = None if window is None else window.close_price.iloc[-1] / close - 1
            end = None if window is None else window.closed_at.iloc[-1]
            size = None if change is None else abs(change)
            scale = deviation.iloc[row]
            ratio = None if change is None or not scale > 0 else change / scale
            signs.append(None if change is None else np.sign(change))
            labels |= {
                f"magnitude_{horizon}": size,
                f"class_{horizon}_end_at": end,
                f"return_over_vol_{horizon}": ratio,
                f"return_over_vol_{horizon}_end_at": None if ratio is None else end,
                f"change_{horizon}": change,
            }
        undecided = None in signs
        labels["agree_5_10_20_40"] = None if undecided else abs(sum(signs)) == 4
        labels["agree_5_10_20_40_end_at"] = end
        rows.append(labels)
    frame = pd.DataFrame(rows, index=np.flatnonzero(~bars.is_gap))
    infinity = float("inf")
    for horizon in HORIZONS:
        change = frame.pop(f"change_{horizon}").astype(float)
        frame[f"class5_{horizon}"] = pd.cut(
            change,
            [-infinity, -0.002, -0.0005, 0.0005, 0.002, infinity],
            labels=["strong_down", "down", "flat", "up", "strong_up"],
        )
        frame[f"magnitude_class_{horizon}"] = pd.cut(
            change.abs(),
            [0, 0.001, 0.002, 0.005, infinity],
            labels=["tiny", "small", "medium", "large"],
            include_lowest=True,
        )
    return frame


def test_return_labels_equal_pandas_and_a_loop(models: Models, bars: pd.DataFrame) -> None:
    ranges = average_ranges(bars)
    expected = plain_return_labels(bars)
    scaled = label(models, "lbl_return_over_vol", bars, ranges)
    classes = label(models, "lbl_return_class", bars, ranges)
    of_scale = [name for name in expected if "over_vol" in name]
    assert set(scaled) == {*KEY, "available_at", *of_scale}
    assert set(classes) == {*KEY, "available_at", *expected} - set(of_scale)
    assert_same(scaled, expected[of_scale])
    assert_same(classes, expected.drop(columns=of_scale))
    for horizon in HORIZONS:
        assert classes[f"class5_{horizon}"].nunique() == 5
        assert classes[f"magnitude_class_{horizon}"].nunique() == 4
    assert set(classes.agree_5_10_20_40.dropna()) == {True, False}


def test_adaptive_labels_equal_a_loop(models: Models, many_bars: pd.DataFrame) -> None:
    bars = many_bars
    ranges = average_ranges(bars)
    actual = label(models, "lbl_adaptive", bars, ranges)
    atr = ranges.atr_pct_14.reindex(bars.index)
    expected = []
    for symbol in SYMBOLS:
        own = bars[(bars.symbol == symbol) & ~bars.is_gap]
        known = atr[own.index]
        median = known.rolling(1000, min_periods=1000).median()
        for row in own.index:
            target = 0.003 * known[row] / median[row]
            labels = {"adaptive_target": target}
            close = bars.close_price[row]
            for horizon in HORIZONS:
                window = None if np.isnan(target) else ahead(bars, row, horizon)
                up, down = close * (1 + target), close * (1 - target)
                for name, is_up in (("up", True), ("down", False)):
                    labels[f"{name}_adaptive_{horizon}"] = (
                        None if window is None else barrier(window, up, down, is_up=is_up)
                    )
                labels[f"adaptive_{horizon}_end_at"] = (
                    None if window is None else window.closed_at.iloc[-1]
                )
            expected.append(labels)
    assert_same(actual, pd.DataFrame(expected))
    assert set(actual) == {*KEY, "available_at", *expected[0]}
    assert actual.adaptive_target.notna().sum() > 300
    decided = actual[actual.adaptive_20_end_at.notna()]
    assert set(decided.up_adaptive_20.dropna()) == {True, False}


def triple_oracle(bars: pd.DataFrame) -> pd.DataFrame:
    deviation = deviations(bars)
    rows = []
    for row in np.flatnonzero(~bars.is_gap):
        close, scale = bars.close_price.iloc[row], deviation.iloc[row]
        labels = {}
        for horizon in HORIZONS:
            window = ahead(bars, row, horizon) if scale > 0 else None
            side = touched_at = end = None
            if window is not None:
                upper = first(window.high_price > close * (1 + 2 * scale))
                lower = first(window.low_price < close * (1 - 2 * scale))
                touch = min(upper, lower)
                end = window.closed_at.iloc[-1]
                if touch > horizon:
                    side = 0
                else:
                    side = None if upper == lower else 1 if upper < lower else -1
                    touched_at = window.closed_at.iloc[touch - 1]
            labels[f"triple_barrier_{horizon}"] = side
            labels[f"triple_barrier_{horizon}_touched_at"] = touched_at
            labels[f"triple_barrier_{horizon}_end_at"] = end
        rows.append(labels)
    return pd.DataFrame(rows)


def test_triple_barriers_and_their_touch_equal_a_loop(models: Models, bars: pd.DataFrame) -> None:
    actual = label(models, "lbl_triple_barrier", bars, average_ranges(bars))
    expected = triple_oracle(bars)
    assert_same(actual, expected)
    assert set(actual) == {*KEY, "available_at", *expected}
    for horizon in HORIZONS:
        decided = actual[actual[f"triple_barrier_{horizon}_end_at"].notna()]
        assert set(decided[f"triple_barrier_{horizon}"].dropna()) >= {-1, 1}
    assert set(actual.triple_barrier_5.dropna()) == {-1, 0, 1}


def test_recorded_bars_give_the_triple_barriers_of_a_loop(
    models: Models, shared_data: Path
) -> None:
    bars = pd.concat(
        [
            recorded_bars(
                shared_data / "um" / f"klines_{symbol}_1m.parquet",
                symbol=symbol,
                interval_minutes=1,
                rows=700,
            )
            for symbol in ("BNBUSDT", "XRPUSDT")
        ],
        ignore_index=True,
    )
    actual = label(models, "lbl_triple_barrier", bars, average_ranges(bars))
    assert_same(actual, triple_oracle(bars))
    assert actual.triple_barrier_40.notna().sum() > 1000


def test_every_pair_of_threshold_and_horizon_equals_a_loop(
    models: Models, bars: pd.DataFrame
) -> None:
    actual = label(models, "lbl_high_low", bars, average_ranges(bars))
    expected = []
    for row in np.flatnonzero(~bars.is_gap):
        close, labels = bars.close_price.iloc[row], {}
        for threshold, horizon in BARRIERS:
            window = ahead(bars, row, horizon)
            up, down = (close * (10000 + sign * threshold) / 10000 for sign in (1, -1))
            for name, is_up in (("high", True), ("low", False)):
                labels[f"{name}_{threshold:03d}_{horizon}"] = (
                    None if window is None else barrier(window, up, down, is_up=is_up)
                )
            labels[f"high_low_{horizon}_end_at"] = (
                None if window is None else window.closed_at.iloc[-1]
            )
        expected.append(labels)
    assert_same(actual, pd.DataFrame(expected))
    assert set(actual) == {*KEY, "available_at", *expected[0]}
    for threshold, horizon in BARRIERS:
        assert set(actual[f"high_{threshold:03d}_{horizon}"].dropna()) == {True, False}


@pytest.mark.parametrize("name", [*FAMILIES, "lbl_high_low"])
def test_bars_after_the_horizon_change_no_label(
    models: Models, many_bars: pd.DataFrame, name: str
) -> None:
    bars = many_bars
    ranges = average_ranges(bars)
    whole = label(models, name, bars, ranges)
    ends = [column for column in whole if column.endswith("_end_at")]
    past = cut(bars, end=1600)
    until = past.closed_at.max()
    part = label(models, name, past, ranges[ranges.opened_at < until])
    assert part.symbol.unique().tolist() == SYMBOLS
    of_end = {end: labels_of(end, whole) for end in ends}
    assert sorted(chain(*of_end.values())) == sorted(
        set(whole) - {*KEY, "available_at", *ends} - {"adaptive_target"}
    )
    expected = whole[whole.opened_at < until].reset_index(drop=True)
    for end, columns in of_end.items():
        undecided = ~(expected[end] <= until)
        expected.loc[undecided, [end, *columns]] = None
    assert_same(part, expected)
    assert all(part[end].notna().sum() > 200 for end in ends)


def labels_of(end: str, table: pd.DataFrame) -> list[str]:
    """The label columns that an end serves."""
    stem = end.removesuffix("_end_at")
    if stem.startswith("high_low_"):
        horizon = stem.removeprefix("high_low_")
        return [
            name for name in table if name.endswith(f"_{horizon}") and name[:4] in ("high", "low_")
        ]
    if stem.startswith("class_"):
        horizon = stem.removeprefix("class_")
        names = [f"magnitude_{horizon}", f"class5_{horizon}", f"magnitude_class_{horizon}"]
    elif stem.startswith("adaptive_"):
        names = [f"up_{stem}", f"down_{stem}"]
    else:
        names = [stem, f"{stem}_touched_at"]
    return [name for name in names if name in table]


def test_a_constant_price_has_no_scaled_label_and_no_barrier(models: Models) -> None:
    bars = random_bars(bars=120)
    prices = ["open_price", "high_price", "low_price", "close_price"]
    bars.loc[~bars.is_gap, prices] = 100.0
    ranges = average_ranges(bars)
    scaled = label(models, "lbl_return_over_vol", bars, ranges)
    triple = label(models, "lbl_triple_barrier", bars, ranges)
    assert scaled.return_over_vol_5.notna().sum() == 0
    assert triple.drop(columns=[*KEY, "available_at"]).notna().sum().sum() == 0
