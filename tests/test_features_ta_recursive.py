"""Recursive indicators, the volume profile, sessions and regimes against TA-Lib and plain loops."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import talib
import yaml

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

BARS = 6000
PRICES = [
    *(f"close_sma_{bars}" for bars in (10, 20, 50, 60, 200)),
    *("close_ema_12", "close_ema_26", "vwap_session", "volume_profile_poc_96"),
    *("keltner_20_upper", "keltner_20_middle", "keltner_20_lower"),
]
CHANGES = ["close_macd", "close_macd_signal", "close_macd_hist", "high_low_close_atr_14"]
WARM_UP = {
    **{f"close_sma_{bars}": bars for bars in (10, 20, 50, 60, 200)},
    "close_ema_12": 256,
    "close_ema_26": 512,
    "close_macd": 512,
    "close_macd_signal": 639,
    "close_macd_hist": 639,
    "close_rsi_14": 513,
    "high_low_close_atr_14": 513,
    "atr_pct_14": 513,
    "plus_di_14": 513,
    "minus_di_14": 513,
    "high_low_close_adx_14": 1024,
    "keltner_20_upper": 257,
    "keltner_20_middle": 257,
    "keltner_20_lower": 257,
    "high_low_close_cci_14": 14,
    "high_low_close_volume_mfi_14": 15,
    "close_volume_obv_rel": 21,
    "volume_profile_poc_96": 96,
    "vol_regime": 2528,
}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    return compiled(tmp_path_factory)


@pytest.fixture(scope="module")
def bars() -> pd.DataFrame:
    return random_bars(bars=BARS)


@pytest.fixture(scope="module")
def features(models: Models, bars: pd.DataFrame) -> pd.DataFrame:
    return built(models, "feat_ta", {"int_bars": bars})


def windows(run: pd.DataFrame) -> pd.DataFrame:
    """Indicators of one run by TA-Lib, NULL until the stated number of bars."""
    high, low, close, volume = (
        run[name].to_numpy(dtype=float)
        for name in ("high_price", "low_price", "close_price", "volume")
    )
    macd, signal, hist = talib.MACD(close, 12, 26, 9)
    middle, width = talib.EMA(close, 20), 2 * talib.ATR(high, low, close, 10)
    atr = talib.ATR(high, low, close, 14)
    direction = np.sign(np.diff(close, prepend=np.nan)) * volume
    moved = pd.Series(direction).rolling(20).sum() / pd.Series(volume).rolling(20).sum()
    expected = {
        **{f"close_sma_{bars}": talib.SMA(close, bars) for bars in (10, 20, 50, 60, 200)},
        "close_ema_12": talib.EMA(close, 12),
        "close_ema_26": talib.EMA(close, 26),
        "close_macd": macd,
        "close_macd_signal": signal,
        "close_macd_hist": hist,
        "close_rsi_14": talib.RSI(close, 14),
        "high_low_close_atr_14": atr,
        "atr_pct_14": atr / close * 100,
        "plus_di_14": talib.PLUS_DI(high, low, close, 14),
        "minus_di_14": talib.MINUS_DI(high, low, close, 14),
        "high_low_close_adx_14": talib.ADX(high, low, close, 14),
        "keltner_20_upper": middle + width,
        "keltner_20_middle": middle,
        "keltner_20_lower": middle - width,
        "high_low_close_cci_14": talib.CCI(high, low, close, 14),
        "high_low_close_volume_mfi_14": talib.MFI(high, low, close, volume, 14),
        "close_volume_obv_rel": moved.to_numpy(),
    }
    frame = pd.DataFrame(expected, index=run.index)
    for name in expected:
        frame.iloc[: WARM_UP[name] - 1, frame.columns.get_loc(name)] = np.nan
    return frame


def point_of_control(run: pd.DataFrame) -> list[float]:
    """The bucket with most volume of each 96 bars, found by adding up every window anew."""
    typical = (run.high_price + run.low_price + run.close_price).to_numpy() / 3
    width = 5e-4 * np.sqrt(run.interval_minutes.to_numpy())
    buckets = np.floor(np.log(typical) / width)
    lots = np.round(run.volume.to_numpy() * 1e9).astype(int)
    points = [np.nan] * 95
    for end in range(96, len(run) + 1):
        names, places = np.unique(buckets[end - 96 : end], return_inverse=True)
        totals = np.zeros(len(names), dtype=int)
        np.add.at(totals, places, lots[end - 96 : end])
        points.append(np.exp((names[totals.argmax()] + 0.5) * width[end - 1]))
    return points


def session_price(bars: pd.DataFrame) -> pd.Series:
    """The volume-weighted typical price since midnight, where no bar of the day is missing."""
    typical = (bars.high_price + bars.low_price + bars.close_price) / 3
    day = [bars.symbol, bars.opened_at.dt.date]
    value = (typical * bars.volume).groupby(day).cumsum() / bars.volume.groupby(day).cumsum()
    minute = bars.opened_at.dt.hour * 60 + bars.opened_at.dt.minute
    return value.where(bars.bars_in_run > minute / bars.interval_minutes)


def regime(atr_pct: pd.Series) -> pd.Series:
    low, high = atr_pct.rolling(2016).quantile(0.35), atr_pct.rolling(2016).quantile(0.7)
    return ((atr_pct > low).astype(float) + (atr_pct > high)).where(low.notna())


def expected_of(bars: pd.DataFrame, features: pd.DataFrame) -> pd.DataFrame:
    """Every column this file answers for, on the reported bars."""
    parts = []
    for run in runs(bars):
        frame = windows(run)
        frame["volume_profile_poc_96"] = point_of_control(run)
        frame["vol_regime"] = regime(features.atr_pct_14[run.index])
        parts.append(frame)
    expected = pd.concat(parts).sort_index()
    reported = bars[~bars.is_gap]
    expected["vwap_session"] = session_price(bars)[reported.index]
    expected["close_volume_obv"] = np.concatenate(
        [
            talib.OBV(rows.close_price.to_numpy(), rows.volume.to_numpy())
            for _, rows in reported.groupby("symbol")
        ]
    )
    for name in PRICES:
        expected[f"{name}_rel"] = expected[name] / reported.close_price - 1
    for name in CHANGES:
        expected[f"{name}_rel"] = expected[name] / reported.close_price
    return expected


def aligned(bars: pd.DataFrame, features: pd.DataFrame) -> pd.DataFrame:
    """The features with the index of the reported bars."""
    reported = bars[~bars.is_gap].sort_values(KEY)
    assert features[KEY].to_numpy().tolist() == reported[KEY].to_numpy().tolist()
    return features.set_index(reported.index).sort_index()


def assert_equal(actual: pd.DataFrame, expected: pd.DataFrame, *, scale: float) -> None:
    """Compare to 1e-9 of the value, or of the size of what it was computed from."""
    for column in expected:
        is_price = column in CHANGES
        np.testing.assert_allclose(
            actual[column].to_numpy(dtype=float),
            expected[column].to_numpy(dtype=float),
            rtol=1e-9,
            atol=1e-9 * (scale if is_price else 1),
            err_msg=str(column),
        )


def test_indicators_equal_those_of_talib_from_the_stated_warm_up_on(
    bars: pd.DataFrame, features: pd.DataFrame
) -> None:
    actual = aligned(bars, features)
    expected = expected_of(bars, actual)
    assert_equal(actual, expected, scale=1000)
    assert set(expected.vol_regime.dropna()) == {0, 1, 2}
    assert expected.notna().sum().min() > BARS // 3


def test_recorded_bars_give_the_indicators_of_talib(models: Models, shared_data: Path) -> None:
    files = {
        ("XRPUSDT", 1): "um/klines_XRPUSDT_1m.parquet",
        ("BTCUSDT", 60): "spot/klines_BTCUSDT_1h.parquet",
    }
    for (symbol, interval_minutes), name in files.items():
        bars = recorded_bars(
            shared_data / name, symbol=symbol, interval_minutes=interval_minutes, rows=4000
        )
        actual = aligned(bars, built(models, "feat_ta", {"int_bars": bars}))
        assert_equal(actual, expected_of(bars, actual), scale=bars.close_price.mean())


def test_a_bar_after_the_cut_changes_no_indicator_before_it(
    models: Models, bars: pd.DataFrame, features: pd.DataFrame
) -> None:
    earlier = built(models, "feat_ta", {"int_bars": cut(bars, end=BARS * 3 // 4)})
    whole = features.merge(earlier[KEY])
    assert earlier.symbol.unique().tolist() == SYMBOLS
    pd.testing.assert_frame_equal(whole, earlier, check_exact=True)


def test_starting_later_changes_no_bit_once_the_look_back_is_over(
    models: Models, bars: pd.DataFrame, features: pd.DataFrame, project_root: Path
) -> None:
    described = yaml.safe_load(
        (project_root / "dbt_project/models/features/feat_ta.yml").read_text()
    )["models"][0]
    said = {
        column["name"]: column.get("config", {}).get("meta", {}) for column in described["columns"]
    }
    unbounded = [name for name, meta in said.items() if meta.get("is_unbounded")]
    longest = max(meta.get("window_bars", 0) for meta in said.values())
    assert unbounded == ["close_volume_obv"]
    start = BARS // 3 + 7
    later = built(models, "feat_ta", {"int_bars": cut(bars, start=start)})
    number = later.groupby("symbol").cumcount()
    later = later[number >= longest]
    whole = features.merge(later[KEY])
    assert len(later) > 1000
    pd.testing.assert_frame_equal(
        whole.drop(columns=unbounded),
        later.drop(columns=unbounded).reset_index(drop=True),
        check_exact=True,
    )


def test_flat_prices_have_no_direction(models: Models, bars: pd.DataFrame) -> None:
    flat = bars.copy()
    prices = ["open_price", "high_price", "low_price", "close_price"]
    flat[prices] = flat[prices].where(flat.is_gap, 0.1)
    last = built(models, "feat_ta", {"int_bars": flat}).groupby("symbol").last()
    assert last.close_rsi_14.isna().all()
    assert last.high_low_close_adx_14.isna().all()
    assert last.high_low_close_cci_14.tolist() == [0, 0]
    assert last.close_volume_obv_rel.tolist() == [0, 0]
    assert last.vol_regime.tolist() == [0, 0]
