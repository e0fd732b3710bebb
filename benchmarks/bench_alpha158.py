"""Alpha158 by dbt on DuckDB, beside pandas.

`python benchmarks/bench_alpha158.py [rows] [pandas rows]`: 2.7 million one-minute bars of 5 symbols
by default. Timed is what dbt runs from `int_bars` to the table `feat_alpha158`, written to disk.
Pandas computes the same 158 columns of the first bars of one symbol in memory, on one core, with
its rolling functions and, like Qlib, `argmax` by `rolling.apply`. The values of both are compared.
"""

import sys
import tempfile
from pathlib import Path
from time import perf_counter

import duckdb
import market
import numpy as np
import pandas as pd

WINDOWS = [5, 10, 20, 30, 60]


def main() -> None:
    """Print the time of both, rows a second and the ratio."""
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else 2_700_000
    pandas_rows = int(sys.argv[2]) if len(sys.argv) > 2 else 50_000
    market.print_machine("pandas")
    with tempfile.TemporaryDirectory() as folder:
        working = Path(folder)
        market.write_klines(working / "tapehouse.duckdb", bars=rows // len(market.SYMBOLS))
        market.dbt_run(working, "+int_bars")
        run = market.dbt_run(working, "+feat_alpha158", exclude="+int_bars")
        with duckdb.connect(working / "tapehouse.duckdb", read_only=True) as connection:
            bars = connection.execute(
                "select * from int_bars where interval_minutes = 1 and symbol = ?"
                " order by opened_at limit ?",
                [market.SYMBOLS[0], pandas_rows],
            ).df()
            actual = connection.execute(
                "select * from feat_alpha158 where symbol = ? order by opened_at limit ?",
                [market.SYMBOLS[0], pandas_rows],
            ).df()
    started = perf_counter()
    expected = alpha158(bars)
    alone = perf_counter() - started
    for name in expected:
        # Pandas carries rounding from bar to bar: what is to be equal here is the meaning.
        if not np.allclose(actual[name], expected[name], rtol=1e-4, atol=1e-4, equal_nan=True):
            sys.exit(f"{name} of DuckDB differs from that of pandas")
    print(f"dbt on DuckDB {rows:,} rows {run}")
    for name, seconds in run.models.items():
        print(f"    {name:<28} {seconds:6.1f} s")
    print(f"pandas        {len(bars):,} rows {alone:7.1f} s")
    print(f"rows a second, dbt : pandas {rows / run.seconds / (len(bars) / alone):.1f}")


def alpha158(bars: pd.DataFrame) -> pd.DataFrame:
    """Compute the 158 columns as someone who knows pandas would."""
    o, c, v = bars["open_price"], bars["close_price"], bars["volume"]
    high, low = bars["high_price"], bars["low_price"]
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
        "vwap0": bars["quote_volume"] / v / c,
    }
    ratio, volume_ratio = c / c.shift(1), np.log(v / v.shift(1) + 1)
    weighted = (ratio - 1).abs() * v
    change, volume_change = c.diff(), v.diff()
    rise, fall = (change > 0).astype(float), (change < 0).astype(float)
    position = pd.Series(np.arange(len(bars), dtype=float))
    for d in WINDOWS:
        moving = {"window": d, "min_periods": 1}
        closes, volumes, places = (
            c.rolling(**moving),
            v.rolling(**moving),
            position.rolling(**moving),
        )
        highest, lowest = high.rolling(**moving).max(), low.rolling(**moving).min()
        first_high = high.rolling(**moving).apply(np.argmax, raw=True) + 1
        first_low = low.rolling(**moving).apply(np.argmin, raw=True) + 1
        slope = closes.cov(position) / places.var()
        moves = change.abs().rolling(**moving).sum() + 1e-12
        gain = change.clip(lower=0).rolling(**moving).sum()
        loss = (-change).clip(lower=0).rolling(**moving).sum()
        volume_moves = volume_change.abs().rolling(**moving).sum() + 1e-12
        volume_gain = volume_change.clip(lower=0).rolling(**moving).sum()
        volume_loss = (-volume_change).clip(lower=0).rolling(**moving).sum()
        rises, falls = rise.rolling(**moving).mean(), fall.rolling(**moving).mean()
        features |= {
            f"roc{d}": c.shift(d) / c,
            f"ma{d}": closes.mean() / c,
            f"std{d}": closes.std() / c,
            f"beta{d}": slope / c,
            f"rsqr{d}": closes.corr(position) ** 2,
            f"resi{d}": (c - closes.mean() - slope * (position - places.mean())) / c,
            f"max{d}": highest / c,
            f"min{d}": lowest / c,
            f"qtlu{d}": closes.quantile(0.8) / c,
            f"qtld{d}": closes.quantile(0.2) / c,
            f"rank{d}": closes.rank(pct=True),
            f"rsv{d}": (c - lowest) / (highest - lowest + 1e-12),
            f"imax{d}": first_high / d,
            f"imin{d}": first_low / d,
            f"imxd{d}": (first_high - first_low) / d,
            f"corr{d}": closes.corr(np.log(v + 1)),
            f"cord{d}": ratio.rolling(**moving).corr(volume_ratio),
            f"cntp{d}": rises,
            f"cntn{d}": falls,
            f"cntd{d}": rises - falls,
            f"sump{d}": gain / moves,
            f"sumn{d}": loss / moves,
            f"sumd{d}": (gain - loss) / moves,
            f"vma{d}": volumes.mean() / (v + 1e-12),
            f"vstd{d}": volumes.std() / (v + 1e-12),
            f"wvma{d}": weighted.rolling(**moving).std()
            / (weighted.rolling(**moving).mean() + 1e-12),
            f"vsump{d}": volume_gain / volume_moves,
            f"vsumn{d}": volume_loss / volume_moves,
            f"vsumd{d}": (volume_gain - volume_loss) / volume_moves,
        }
    return pd.DataFrame(features)


if __name__ == "__main__":
    main()
