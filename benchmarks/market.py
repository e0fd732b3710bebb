"""What the benchmarks share: a random market, runs of dbt, and the line on the machine."""

import json
import os
import platform
import re
import subprocess
import sys
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import version
from pathlib import Path

import duckdb

ROOT = Path(__file__).resolve().parents[1]
SYMBOLS = ["BTCUSDT", "ETHUSDT", "SOLUSDT", "BNBUSDT", "XRPUSDT"]
# Only one-minute bars are of interest; a dataset of the project wants those of five minutes, too.
VARIABLES = {"interval_minutes": [1, 5], "alpha158_interval_minutes": [1]}


@dataclass(frozen=True)
class Run:
    """What a run of dbt cost: seconds of each model, of all, of processors, and peak memory.

    `models` has what dbt reports for each, waiting for other threads and rendering included;
    `statement_seconds` is the time of the SQL statements alone, all models together.
    """

    models: dict[str, float]
    statement_seconds: float
    seconds: float
    cpu_seconds: float
    peak_gb: float

    @property
    def model_seconds(self) -> float:
        """Seconds of all models together."""
        return sum(self.models.values())

    def __str__(self) -> str:
        return (
            f"{self.seconds:7.1f} s wall {self.cpu_seconds:7.1f} s of processors"
            f" {self.peak_gb:5.1f} GB peak"
        )


def print_machine(*packages: str) -> None:
    """Print what the figures below were measured with."""
    load = " ".join(f"{value:.1f}" for value in os.getloadavg())
    versions = ", ".join(f"{name} {version(name)}" for name in ("duckdb", *packages))
    print(
        f"{os.cpu_count()} cores {platform.machine()}, load average {load},"
        f" Python {platform.python_version()}, {versions}\n$ {' '.join(sys.argv)}",
        flush=True,
    )


def dbt_run(
    working: Path, select: str, *, exclude: str = "", memory_limit: str | None = None
) -> Run:
    """Build models in `working`, four at a time as `profiles.yml` says."""
    command = [
        *(str(Path(sys.executable).parent / "dbt"), "--quiet", "run", "--select", *select.split()),
        *(["--exclude", *exclude.split()] if exclude else []),
        *("--vars", json.dumps(VARIABLES), "--project-dir", str(ROOT / "dbt_project")),
        *("--profiles-dir", str(ROOT), "--target-path", str(working / "target")),
        *("--log-path", str(working / "logs")),
    ]
    environment = os.environ | {"TAPEHOUSE_DATABASE": str(working / "tapehouse.duckdb")}
    if memory_limit:
        environment["TAPEHOUSE_MEMORY_LIMIT"] = memory_limit
    with subprocess.Popen(command, env=environment) as process:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        sys.exit(f"dbt failed: {' '.join(command)}")
    results = json.loads((working / "target" / "run_results.json").read_text())["results"]
    models = {}
    times = []
    for result in results:
        for part in result["timing"]:
            if part["name"] == "execute":
                start, end = (
                    datetime.fromisoformat(part[key]) for key in ("started_at", "completed_at")
                )
                models[result["unique_id"].split(".")[-1]] = (end - start).total_seconds()
                times += [start, end]
    log = (working / "logs" / "dbt.log").read_text().rpartition("Running with dbt")[2]
    return Run(
        models=models,
        statement_seconds=sum(map(float, re.findall(r"SQL status: OK in ([\d.]+) s", log))),
        seconds=(max(times) - min(times)).total_seconds(),
        cpu_seconds=usage.ru_utime + usage.ru_stime,
        peak_gb=usage.ru_maxrss / 1e6,
    )


def write_klines(database: Path, *, bars: int, first: int = 0) -> None:
    """Add minutes `first` to `bars` of a random walk of each symbol, and fits of its variance."""
    with duckdb.connect(database) as connection:
        connection.execute((ROOT / "ingest" / "raw.sql").read_text())
        connection.execute(f"select setseed({0.5 if first == 0 else 0.6})")
        connection.execute("create temp table symbols as select unnest(?) as symbol", [SYMBOLS])
        connection.execute(
            f"""
            insert into raw.klines by name
            with moves as (
                select
                    symbol, i, (random() - 0.5) * 1e-3 as move, random() as spread,
                    random() as traded, random() as bought
                from symbols cross join range({first}, {bars}) as numbers(i)
            ),
            closes as (
                select
                    symbol, i, spread, bought, round(traded * 50, 3) as volume,
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
                volume, round(volume * (open + close) / 2, 5) as quote_volume, 9 as count,
                round(volume * bought, 3) as taker_buy_volume, true as is_closed,
                'archive' as source, timestamptz '2030-01-01 00:00+00' as received_at
            from opens
            """
        )
        if first == 0:
            connection.execute(
                """
                insert into raw.garch_parameters by name
                select
                    'binance' as exchange, 'um' as market, symbol, 1 as interval_minutes,
                    1e-9 as omega, 0.05 as alpha, 0.9 as beta, fitted as fitted_until,
                    fitted as known_at, 'file' as source, fitted as received_at
                from symbols cross join range(
                    timestamptz '2019-12-31', timestamptz '2024-01-01', interval 60 days
                ) as fits(fitted)
                """
            )


def write_derivatives(database: Path, *, bars: int) -> None:
    """Add fundings, open interest, mark prices and liquidations of as many minutes."""
    with duckdb.connect(database) as connection:
        connection.execute("select setseed(0.7)")
        connection.execute("create temp table symbols as select unnest(?) as symbol", [SYMBOLS])
        common = (
            "'binance' as exchange, 'um' as market, symbol, 'archive' as source,"
            " timestamptz '2030-01-01 00:00+00' as received_at"
        )
        for table, minutes, columns in (
            (
                "funding",
                480,
                "moment as funding_time, round(random() * 4e-4 - 1e-4, 8) as funding_rate",
            ),
            (
                "open_interest",
                5,
                "moment as create_time, round(random() * 1e4, 3) + 1 as sum_open_interest",
            ),
            (
                "mark_prices",
                1,
                "moment as event_time, 1000 + random() as mark_price,"
                " 1000 + random() as index_price",
            ),
            (
                "liquidations",
                7,
                "moment + to_microseconds(cast(6e7 * random() as bigint)) as trade_time,"
                " case when random() < 0.5 then 'SELL' else 'BUY' end as side,"
                " 1000.0 as average_price, round(random() * 10, 3) as filled_accumulated_quantity",
            ),
        ):
            connection.execute(
                f"""
                insert into raw.{table} by name
                select {common}, {columns}
                from symbols cross join range(
                    timestamptz '2020-01-01 00:00+00',
                    timestamptz '2020-01-01 00:00+00' + to_minutes({bars}),
                    interval {minutes} minutes
                ) as moments(moment)
                """
            )
