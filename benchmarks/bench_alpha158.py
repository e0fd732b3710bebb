"""Alpha158 by dbt on DuckDB, beside pandas.

`python benchmarks/bench_alpha158.py [rows] [pandas rows]`: 2.7 million one-minute bars of 5 symbols
by default. Timed is what dbt runs from `int_bars` to the table `feat_alpha158`, written to disk.
Pandas computes the same 158 columns of the first bars of one symbol in memory, on one core, with
its rolling functions and, like Qlib, `argmax` by `rolling.apply`. The values of both are compared.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
from datetime import datetime
from pathlib import Path
from time import perf_counter

import duckdb
import numpy as np
import pandas as pd

ROOT = Path(__file__).resolve().parents[1]
WINDOWS = [5, 10, 20, 30, 60]
SYMBOLS = ["BTCUSDT", "ETHUSDT", "SOLUSDT", "BNBUSDT", "XRPUSDT"]
VARIABLES = "{interval_minutes: [1, 5], alpha158_interval_minutes: [1]}"


def main() -> None:
    """Print the time of both, rows a second and the ratio."""
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else 2_700_000
    pandas_rows = int(sys.argv[2]) if len(sys.argv) > 2 else 50_000
    with tempfile.TemporaryDirectory() as folder:
        working = Path(folder)
        write_klines(working / "tapehouse.duckdb", bars=rows // len(SYMBOLS))
        run(working, "+int_bars")
        seconds = min(run(working, "int_alpha158_bars+,+feat_alpha158") for _ in range(2))
        with duckdb.connect(working / "tapehouse.duckdb", read_only=True) as connection:
            bars = connection.execute(
                "select * from int_bars where interval_minutes = 1 and symbol = ?"
                " order by opened_at limit ?",
                [SYMBOLS[0], pandas_rows],
            ).df()
            actual = connection.execute(
                "select * from feat_alpha158 where symbol = ? order by opened_at limit ?",
                [SYMBOLS[0], pandas_rows],
            ).df()
    started = perf_counter()
    expected = alpha158(bars)
    alone = perf_counter() - started
    for name in expected:
        # Pandas carries rounding from bar to bar: what is to be equal here is the meaning.
        if not np.allclose(actual[name], expected[name], rtol=1e-4, atol=1e-4, equal_nan=True):
            sys.exit(f"{name} of DuckDB differs from that of pandas")
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e6
    load = " ".join(f"{value:.1f}" for value in os.getloadavg())
    print(f"{os.cpu_count()} cores, load average {load}, peak memory of dbt {peak:.1f} GB")
    print(f"dbt on DuckDB  {rows:>10,} rows {seconds:8.1f} s {rows / seconds:12,.0f} rows/s")
    print(f"pandas         {len(bars):>10,} rows {alone:8.1f} s {len(bars) / alone:12,.0f} rows/s")
    print(f"ratio          {rows / seconds / (len(bars) / alone):>10.1f}")


def write_klines(database: Path, *, bars: int) -> None:
    """Fill the raw schema with a random walk of each symbol."""
    with duckdb.connect(database) as connection:
        connection.execute((ROOT / "ingest" / "raw.sql").read_text())
        connection.execute("select setseed(0.5)")
        connection.execute("create temp table symbols as select unnest(?) as symbol", [SYMBOLS])
        connection.execute(
            f"""
            insert into raw.klines by name
            with moves as (
                select
                    symbol, i, (random() - 0.5) * 1e-3 as move, random() as spread,
                    random() as traded
                from symbols cross join range({bars}) as numbers(i)
            ),
            closes as (
                select
                    symbol, i, spread, round(traded * 50, 3) as volume,
                    round(1000 * exp(sum(move) over (partition by symbol order by i)), 2) as close
                from moves
            ),
            opens as (
                select *, coalesce(lag(close) over (partition by symbol order by i), close) as open
                from closes
            )
            select
                'binance' as exchange, 'um' as market, symbol, '1m' as "interval",
                timestamptz '2020-01-01 00:00+00' + to_minutes(i) as open_time,
                open, round(greatest(open, close) + spread, 2) as high,
                round(least(open, close) - spread, 2) as low, close,
                volume, volume * (open + close) / 2 as quote_volume, true as is_closed,
                'archive' as source, timestamptz '2030-01-01 00:00+00' as received_at
            from opens
            """
        )


def run(working: Path, select: str) -> float:
    """Run models with dbt and return the seconds from the first start to the last end."""
    subprocess.run(
        [
            *(str(Path(sys.executable).parent / "dbt"), "--quiet", "run", "--select", select),
            *("--vars", VARIABLES, "--project-dir", str(ROOT / "dbt_project")),
            *("--profiles-dir", str(ROOT), "--target-path", str(working / "target")),
            *("--log-path", str(working / "logs")),
        ],
        env=os.environ | {"TAPEHOUSE_DATABASE": str(working / "tapehouse.duckdb")},
        check=True,
    )
    results = json.loads((working / "target" / "run_results.json").read_text())["results"]
    times = [
        datetime.fromisoformat(part[end])
        for result in results
        for part in result["timing"]
        for end in ("started_at", "completed_at")
    ]
    return (max(times) - min(times)).total_seconds()


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
