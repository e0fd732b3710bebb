"""The columns of `feat_ta` and `feat_stats` by pandas, polars and TA-Lib.

The formulas are written once; `Pandas` and `Polars` name the operations of each. Left out is what
these libraries have no operation for, the volume profile.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import talib

LEVELS = [0.1, 0.25, 0.5, 0.75, 0.9]


class Pandas:
    """Columns as pandas series, computed as they are assigned."""

    def __init__(self, bars: pd.DataFrame) -> None:
        self.columns = dict(bars.items())

    def __getitem__(self, name: str) -> pd.Series:
        return self.columns[name]

    def assign(self, **columns: pd.Series) -> None:
        """Add columns."""
        self.columns |= columns

    @staticmethod
    def where(condition: pd.Series, value: Any, otherwise: Any) -> pd.Series:
        """Choose by row."""
        return pd.Series(np.where(condition, value, otherwise), condition.index)

    lag = staticmethod(lambda x, bars: x.shift(bars))
    log = staticmethod(np.log)
    root = staticmethod(np.sqrt)
    total = staticmethod(lambda x, bars: x.rolling(bars).sum())
    mean = staticmethod(lambda x, bars: x.rolling(bars).mean())
    std = staticmethod(lambda x, bars, ddof=1: x.rolling(bars).std(ddof=ddof))
    skew = staticmethod(lambda x, bars: x.rolling(bars).skew())
    kurtosis = staticmethod(lambda x, bars: x.rolling(bars).kurt())
    highest = staticmethod(lambda x, bars: x.rolling(bars).max())
    lowest = staticmethod(lambda x, bars: x.rolling(bars).min())
    quantile = staticmethod(lambda x, bars, level: x.rolling(bars).quantile(level))
    average = staticmethod(lambda x, weight: x.ewm(alpha=weight, adjust=False).mean())
    running = staticmethod(lambda x: x.cumsum())
    running_in = staticmethod(lambda x, day: x.groupby(day).cumsum())
    day = staticmethod(lambda x: x.dt.floor("D"))


class Polars:
    """Columns as polars expressions on a lazy frame."""

    def __init__(self, bars: pl.DataFrame) -> None:
        self.frame = bars.lazy()

    def __getitem__(self, name: str) -> pl.Expr:
        return pl.col(name)

    def assign(self, **columns: pl.Expr) -> None:
        """Add columns."""
        self.frame = self.frame.with_columns(**columns)

    @staticmethod
    def where(condition: pl.Expr, value: Any, otherwise: Any) -> pl.Expr:
        """Choose by row."""
        return pl.when(condition).then(value).otherwise(otherwise)

    lag = staticmethod(lambda x, bars: x.shift(bars))
    log = staticmethod(lambda x: x.log())
    root = staticmethod(lambda x: x.sqrt())
    total = staticmethod(lambda x, bars: x.rolling_sum(bars))
    mean = staticmethod(lambda x, bars: x.rolling_mean(bars))
    std = staticmethod(lambda x, bars, ddof=1: x.rolling_std(bars, ddof=ddof))
    skew = staticmethod(lambda x, bars: x.rolling_skew(bars, bias=False))
    kurtosis = staticmethod(lambda x, bars: x.rolling_kurtosis(bars, bias=False))
    highest = staticmethod(lambda x, bars: x.rolling_max(bars))
    lowest = staticmethod(lambda x, bars: x.rolling_min(bars))
    quantile = staticmethod(
        lambda x, bars, level: x.rolling_quantile(level, "linear", window_size=bars)
    )
    average = staticmethod(
        lambda x, weight: x.ewm_mean(alpha=weight, adjust=False, ignore_nulls=True)
    )
    running = staticmethod(lambda x: x.cum_sum())
    running_in = staticmethod(lambda x, day: x.cum_sum().over(day))
    day = staticmethod(lambda x: x.dt.truncate("1d"))


def technical(t: Any) -> list[str]:
    """Assign the columns of `feat_ta` and return their names."""
    known = {"close_price", "high_price", "low_price", "volume"}
    c, h, low, v = (t[name] for name in ("close_price", "high_price", "low_price", "volume"))
    before = t.lag(c, 1)
    t.assign(
        typical=(h + low + c) / 3,
        change=c - before,
        rise=h - t.lag(h, 1),
        fall=t.lag(low, 1) - low,
        true_range=t.where(h > before, h, before) - t.where(low < before, low, before),
        range_pct=(h - low) / c * 100,
        highest_14=t.highest(h, 14),
        lowest_14=t.lowest(low, 14),
        day=t.day(t["opened_at"]),
        position=c * 0 + 1,
        **{f"close_ema_{n}": t.average(c, 2 / (n + 1)) for n in (12, 20, 26)},
    )
    typical, change, rise, fall = (t[name] for name in ("typical", "change", "rise", "fall"))
    moved = typical - t.lag(typical, 1)
    t.assign(
        position=t.running(t["position"]),
        gain=t.average(t.where(change > 0, change, 0.0), 1 / 14),
        loss=t.average(t.where(change < 0, -change, 0.0), 1 / 14),
        up=t.average(t.where((rise > 0) & (rise > fall), rise, 0.0), 1 / 14),
        down=t.average(t.where((fall > 0) & (fall > rise), fall, 0.0), 1 / 14),
        atr_10=t.average(t["true_range"], 1 / 10),
        high_low_close_atr_14=t.average(t["true_range"], 1 / 14),
        close_macd=t["close_ema_12"] - t["close_ema_26"],
        inflow=t.where(moved > 1e-12 * typical, typical * v, 0.0),
        outflow=t.where(moved < -1e-12 * typical, typical * v, 0.0),
        signed_volume=t.where(change > 0, v, t.where(change < 0, -v, 0.0)),
        fast_k=(c - t["lowest_14"]) / (t["highest_14"] - t["lowest_14"]) * 100,
        typical_mean=t.mean(typical, 14),
    )
    up, down, atr = t["up"], t["down"], t["high_low_close_atr_14"]
    t.assign(
        close_macd_signal=t.average(t["close_macd"], 2 / 10),
        directional=t.where(up + down > 0, (up - down).abs() / (up + down) * 100, 0.0),
        slow_k=t.mean(t["fast_k"], 3),
        atr_pct_14=atr / c * 100,
        mean_deviation=sum((t.lag(typical, k) - t["typical_mean"]).abs() for k in range(14)) / 14,
    )
    features = {
        **{f"close_sma_{n}": t.mean(c, n) for n in (3, 6, 12, 24, 48, 10, 20, 50, 60, 200)},
        **{f"close_stddev_{n}": t.std(c, n, 0) for n in (12, 24)},
        **{
            f"close_linearreg_slope_{n}": 12
            / (n * (n * n - 1))
            * (t.total(c * t["position"], n) - t.total(c, n) * (t["position"] - (n - 1) / 2))
            for n in (3, 6, 12, 24)
        },
        **{f"close_roc_{n}": (c / t.lag(c, n) - 1) * 100 for n in (1, 5, 10, 20)},
        **{f"spread_pct_{n}": t.mean(t["range_pct"], n) for n in (3, 6, 12)},
        "close_macd_hist": t["close_macd"] - t["close_macd_signal"],
        "close_rsi_14": t["gain"] / (t["gain"] + t["loss"]) * 100,
        "plus_di_14": up / atr * 100,
        "minus_di_14": down / atr * 100,
        "high_low_close_adx_14": t.average(t["directional"], 1 / 14),
        "bands_std": t.std(c, 20, 0),
        "keltner_20_upper": t["close_ema_20"] + 2 * t["atr_10"],
        "keltner_20_middle": t["close_ema_20"],
        "keltner_20_lower": t["close_ema_20"] - 2 * t["atr_10"],
        "stoch_k_14_3": t["slow_k"],
        "stoch_d_3": t.mean(t["slow_k"], 3),
        "close_willr_14": t["fast_k"] - 100,
        "high_low_close_cci_14": (typical - t["typical_mean"]) / (0.015 * t["mean_deviation"]),
        "high_low_close_volume_mfi_14": t.total(t["inflow"], 14)
        / t.total(t["inflow"] + t["outflow"], 14)
        * 100,
        "close_volume_obv": t.running(t["signed_volume"]),
        "close_volume_obv_rel": t.total(t["signed_volume"], 20) / t.total(v, 20),
        "vwap_20": t.total(typical * v, 20) / t.total(v, 20),
        "vwap_session": t.running_in(typical * v, t["day"]) / t.running_in(v, t["day"]),
        "volume_sma_20": t.mean(v, 20),
        "low_atr_pct": t.quantile(t["atr_pct_14"], 2016, 0.35),
        "high_atr_pct": t.quantile(t["atr_pct_14"], 2016, 0.7),
    }
    t.assign(**features)
    middle, width = t["close_sma_20"], 2 * t["bands_std"]
    above = {"upper": middle + width, "middle": middle, "lower": middle - width}
    t.assign(**{f"close_bbands_20_{part}": value for part, value in above.items()})
    names = [*features, *(f"close_bbands_20_{part}" for part in above), "close_macd"]
    names += ["close_macd_signal", "close_ema_12", "close_ema_26", "atr_pct_14"]
    prices = [name for name in names if name.startswith(("close_sma", "close_ema", "close_bb"))]
    prices += ["keltner_20_upper", "keltner_20_middle", "keltner_20_lower", "vwap_20"]
    prices += ["vwap_session"]
    sizes = [name for name in names if name.startswith(("close_std", "close_lin", "close_macd"))]
    upper, lower = t["close_bbands_20_upper"], t["close_bbands_20_lower"]
    twins = {
        **{f"{name}_rel": t[name] / c - 1 for name in prices},
        **{f"{name}_rel": t[name] / c for name in [*sizes, "high_low_close_atr_14"]},
        "bbands_20_width": (upper - lower) / middle,
        "bbands_20_pctb": (c - lower) / (upper - lower),
        "volume_sma_20_rel": v / t["volume_sma_20"] - 1,
        "vol_regime": t.where(t["atr_pct_14"] > t["low_atr_pct"], 1, 0)
        + t.where(t["atr_pct_14"] > t["high_atr_pct"], 1, 0),
    }
    t.assign(**twins)
    helpers = {"bands_std", "low_atr_pct", "high_atr_pct"}
    return [
        name for name in [*names, *twins, "high_low_close_atr_14"] if name not in known | helpers
    ]


def statistics(t: Any) -> list[str]:
    """Assign the columns of `feat_stats` and return their names."""
    c = t["close_price"]
    log_range = t.log(t["high_price"] / t["low_price"])
    body = t.log(c / t["open_price"])
    t.assign(
        r=t.log(c / t.lag(c, 1)),
        parkinson=log_range**2 / (4 * math.log(2)),
        garman_klass=0.5 * log_range**2 - (2 * math.log(2) - 1) * body**2,
    )
    r = t["r"]
    features = {
        "drawdown_288": c / t.highest(c, 288) - 1,
        "garch_volatility_1": t.root(1e-9 / 0.1 + 0.05 / 0.1 * t.average(r**2, 0.1)),
    }
    for n in (20, 60, 240):
        features |= {
            f"log_return_mean_{n}": t.mean(r, n),
            f"log_return_std_{n}": t.std(r, n),
            f"log_return_skew_{n}": t.skew(r, n),
            f"log_return_kurtosis_{n}": t.kurtosis(r, n),
            f"log_return_zscore_{n}": (r - t.mean(r, n)) / t.std(r, n),
            f"trend_strength_{n}": t.total(r, n).abs() / t.total(r.abs(), n),
            **{f"log_return_q{level * 100:.0f}_{n}": t.quantile(r, n, level) for level in LEVELS},
        }
    for n in (12, 60, 288):
        features[f"realised_volatility_{n}"] = t.root(t.total(r**2, n))
    for name in ("parkinson", "garman_klass"):
        features |= {f"{name}_volatility_{n}": t.root(t.mean(t[name], n)) for n in (20, 60)}
    t.assign(**features)
    t.assign(sharpe_60=t["log_return_mean_60"] / t["log_return_std_60"], mean=t.mean(r, 100))
    t.assign(variance=t.total(r**2, 100) - 100 * t["mean"] ** 2)
    correlations = {}
    for k in range(1, 11):
        ends = t.total(r, 100 - k) + t.lag(t.total(r, 100 - k), k)
        products = t.total(r * t.lag(r, k), 100 - k)
        covariance = products - t["mean"] * ends + (100 - k) * t["mean"] ** 2
        correlations[f"log_return_autocorrelation_{k}"] = covariance / t["variance"]
    t.assign(**correlations)
    partial = levinson(t)
    scales = (1, 2, 4, 8, 16, 32)
    t.assign(sum_256=t.total(r, 256), **{f"squares_{n}": t.total(r, n) ** 2 for n in scales})
    for bars in (1, 2, 4, 8, 16, 32, 64, 128):
        squares = {f"squares_{n}": t[f"squares_{n}"] for n in scales if n <= bars}
        t.assign(**{name: value + t.lag(value, bars) for name, value in squares.items()})
    variances = {
        f"variance_{n}": (t[f"squares_{n}"] - t["sum_256"] ** 2 / (256 // n))
        / ((256 // n - 1) * n**2)
        for n in scales
    }
    t.assign(**variances)
    slope = sum((place - 2.5) * t.log(t[name]) for place, name in enumerate(variances))
    t.assign(hurst_256=1 + slope / (35 * math.log(2)))
    return [*features, "sharpe_60", *correlations, *partial, "hurst_256"]


def levinson(t: Any) -> list[str]:
    """Assign the partial autocorrelations of five lags, order by order."""
    names = []
    for order in range(1, 6):
        above, below = t[f"log_return_autocorrelation_{order}"], 1
        for k in range(1, order):
            coefficient = t[f"coefficient_{order - 1}_{k}"]
            above = above - coefficient * t[f"log_return_autocorrelation_{order - k}"]
            below = below - coefficient * t[f"log_return_autocorrelation_{k}"]
        names.append(f"log_return_partial_autocorrelation_{order}")
        t.assign(**{names[-1]: above / below})
        t.assign(
            **{
                f"coefficient_{order}_{k}": t[f"coefficient_{order - 1}_{k}"]
                - t[names[-1]] * t[f"coefficient_{order - 1}_{order - k}"]
                for k in range(1, order)
            },
            **{f"coefficient_{order}_{order}": t[names[-1]]},
        )
    return names


def by_pandas(bars: pd.DataFrame, family: Callable[[Any], list[str]]) -> pd.DataFrame:
    """Columns of one symbol's bars."""
    table = Pandas(bars)
    names = family(table)
    return pd.DataFrame({name: table[name] for name in names})


def by_polars(
    bars: list[pl.DataFrame], families: list[Callable[[Any], list[str]]]
) -> list[pl.DataFrame]:
    """Columns of each symbol's bars and each family, all at once on all cores."""
    plans = []
    for symbol in bars:
        for family in families:
            table = Polars(symbol)
            names = family(table)
            plans.append(table.frame.select(names))
    return pl.collect_all(plans)


def by_talib(bars: dict[str, np.ndarray]) -> list[np.ndarray]:
    """The indicators of `feat_ta` that TA-Lib has, of one symbol's bars."""
    c, h, low, v = (bars[name] for name in ("close_price", "high_price", "low_price", "volume"))
    return [
        *(talib.SMA(c, n) for n in (3, 6, 12, 24, 48, 10, 20, 50, 60, 200)),
        *(talib.EMA(c, n) for n in (12, 20, 26)),
        *talib.MACD(c, 12, 26, 9),
        talib.RSI(c, 14),
        *(talib.ATR(h, low, c, n) for n in (10, 14)),
        talib.ADX(h, low, c, 14),
        talib.PLUS_DI(h, low, c, 14),
        talib.MINUS_DI(h, low, c, 14),
        *talib.BBANDS(c, 20, 2.0, 2.0),
        *talib.STOCH(h, low, c, 14, 3, 0, 3, 0),
        talib.WILLR(h, low, c, 14),
        talib.CCI(h, low, c, 14),
        talib.MFI(h, low, c, v, 14),
        *(talib.ROC(c, n) for n in (1, 5, 10, 20)),
        *(talib.LINEARREG_SLOPE(c, n) for n in (3, 6, 12, 24)),
        *(talib.STDDEV(c, n) for n in (12, 24)),
        talib.OBV(c, v),
        talib.SMA(v, 20),
    ]
