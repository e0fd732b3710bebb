"""Planted leaks are named, each by its column, and the project's own tables have none."""

import os
import shutil
import subprocess
import sys
from datetime import datetime, time, timedelta
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pytest
from features_fixtures import START, SYMBOLS, random_market, write_raw
from leaky_models import LEAKY

from ingest.files import ingest_files
from ingest.settings import Settings
from serving.leaks import NothingToCheckError, Proof, check, checkable, compiled_tables

MINUTES = 1800
PREFIXES = {"features": "feat", "labels": "lbl", "datasets": "ds"}
# Datasets of symbols that the random market does not have.
ABSENT = {"ds_order_flow_sol", "ds_order_flow_xrp", "ds_trend"}
EVENTS = {
    "klines": ("open_time", 60),
    "trades": ("transact_time", 0),
    "books": ("transact_time", 0),
    "funding": ("funding_time", 0),
    "open_interest": ("create_time", 0),
    "mark_prices": ("event_time", 0),
    "liquidations": ("trade_time", 0),
    "macro_bars": ("close_time", 0),
}


def slow_series(generator: np.random.Generator) -> dict[str, pd.DataFrame]:
    """Funding every 8 hours and open interest every 5 minutes, some of it corrected later."""
    keys = pd.DataFrame({"exchange": "binance", "market": "um", "symbol": SYMBOLS})
    hours = pd.DataFrame({"funding_time": pd.date_range(START.floor("8h"), periods=5, freq="8h")})
    funding = keys.merge(hours, how="cross")
    funding["funding_rate"] = generator.normal(0, 1e-4, len(funding))
    steps = pd.DataFrame({"create_time": pd.date_range(START, periods=MINUTES // 5, freq="5min")})
    readings = keys.merge(steps, how="cross")
    readings["sum_open_interest"] = np.round(generator.uniform(1e4, 2e4, len(readings)), 3)
    marks = keys.merge(
        pd.DataFrame({"event_time": pd.date_range(START, periods=MINUTES, freq="min")}), how="cross"
    )
    marks["index_price"] = np.round(1000 + generator.normal(0, 1, len(marks)), 2)
    marks["mark_price"] = np.round(marks.index_price + generator.normal(0, 0.1, len(marks)), 2)
    orders = (
        marks[["exchange", "market", "symbol"]]
        .iloc[::20]
        .assign(
            trade_time=marks.event_time.iloc[::20] + pd.Timedelta("7s"),
            side=lambda rows: generator.choice(["BUY", "SELL"], len(rows)),
            original_quantity=1.0,
            filled_accumulated_quantity=1.0,
            price=marks.mark_price.iloc[::20],
            average_price=marks.mark_price.iloc[::20],
        )
    )
    macro = pd.DataFrame({"series": ["spx", "dxy", "gold", "vix"]}).merge(
        pd.DataFrame({"close_time": pd.date_range(START, periods=MINUTES // 5, freq="5min")}),
        how="cross",
    )
    macro["close"] = np.round(100 + generator.normal(0, 1, len(macro)), 2)
    return {
        "funding": funding,
        "open_interest": readings,
        "mark_prices": marks,
        "liquidations": orders,
        "macro_bars": macro,
    }


def feeds(generator: np.random.Generator) -> dict[str, pd.DataFrame]:
    """Headlines that arrive and are scored later or with them, and two fits of each series."""
    count = MINUTES // 12
    published = START + pd.to_timedelta(np.arange(count) * 12, unit="min")
    arrived = published + pd.to_timedelta(generator.integers(0, 3000, count), unit="s")
    news = pd.DataFrame(
        {
            "provider": "wire",
            "news_id": np.arange(count).astype(str),
            "published_time": published,
            "arrival_time": arrived.where(np.arange(count) % 3 > 0),
            "headline": "up",
            "source": "file:news.csv",
            "received_at": arrived,
        }
    )
    scores = news.drop(columns="headline").assign(
        scorer="vader",
        score=np.round(generator.uniform(-1, 1, count), 4),
        arrival_time=arrived + pd.to_timedelta(np.arange(count) % 2 * 11, unit="min"),
    )
    fits = pd.DataFrame({"exchange": "binance", "market": "um", "symbol": SYMBOLS}).merge(
        pd.DataFrame(
            {
                "interval_minutes": np.int32(1),
                "omega": [1e-8, 2e-8],
                "alpha": [0.1, 0.2],
                "beta": [0.8, 0.7],
                "fitted_until": [START, START + pd.Timedelta(minutes=MINUTES * 2 // 3)],
                "known_at": [START, START + pd.Timedelta(minutes=MINUTES * 3 // 4)],
                "source": "arch",
                "received_at": START + pd.Timedelta(days=30),
            }
        ),
        how="cross",
    )
    return {"news": news, "news_scores": scores, "garch_parameters": fits}


def live_market() -> dict[str, pd.DataFrame]:
    """A random market; its last third was recorded live, some rows late, some twice."""
    generator = np.random.default_rng(5)
    market = random_market(minutes=MINUTES) | slow_series(generator)
    for name, (column, seconds) in EVENTS.items():
        frame = market[name]
        event = frame[column] + pd.Timedelta(seconds=seconds)
        live = event > START + pd.Timedelta(minutes=MINUTES * 2 // 3)
        delay = pd.to_timedelta(generator.uniform(0.05, 1.5, len(frame)).round(6), unit="s")
        frame["source"] = np.where(live, "websocket:segment", "archive")
        frame["received_at"] = (event + delay).where(live, START + pd.Timedelta(days=30))
    late = {"funding": "15min", "open_interest": "12min"}
    for name, delay in late.items():
        live = market[name].source != "archive"
        market[name].loc[live, "received_at"] += pd.Timedelta(delay)
    for name in ("klines", "books", "open_interest"):
        twice = market[name][market[name].source != "archive"].iloc[::40].copy()
        twice["received_at"] += pd.Timedelta(minutes=4)
        market[name] = pd.concat([market[name], twice], ignore_index=True)
    for name, position in {"klines": 203, "trades": 900, "books": 301}.items():
        # One row that arrived after the rows of several bars that followed it.
        row = market[name].index[market[name].source != "archive"][position]
        market[name].loc[row, "received_at"] += pd.Timedelta(minutes=6)
    return market | feeds(generator)


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("leaks") / "tapehouse.duckdb"
    write_raw(path, live_market())
    return path


@pytest.fixture(scope="module")
def planted_root(project_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project with all the leaky models in it."""
    root = tmp_path_factory.mktemp("planted")
    shutil.copy(project_root / "profiles.yml", root)
    ignored = shutil.ignore_patterns("target", "logs", "__pycache__")
    for folder in ("dbt_project", "ingest", "ml", "serving", "orchestration"):
        shutil.copytree(project_root / folder, root / folder, ignore=ignored)
    for name, leaky in LEAKY.items():
        file = root / "dbt_project" / "models" / leaky.layer / f"{planted(name)}.sql"
        file.write_text(leaky.sql())
    return root


@pytest.fixture(scope="module")
def manifest(database: Path, planted_root: Path) -> dict[str, Any]:
    return compiled_tables(database, project=planted_root / "dbt_project")


@pytest.fixture(scope="module")
def proof(database: Path, manifest: dict[str, Any]) -> Proof:
    return check(database, manifest=manifest)


def planted(name: str) -> str:
    return f"{PREFIXES[LEAKY[name].layer]}_{name}"


def command(database: Path, root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {"TAPEHOUSE_DATABASE": str(database), "PYTHONPATH": str(root), "COLUMNS": "200"}
    return subprocess.run(
        [sys.executable, "-m", "orchestration.cli", "check", "leaks", *arguments],
        env=os.environ | environment,
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("name", LEAKY)
def test_a_planted_leak_is_named_by_its_column(proof: Proof, name: str) -> None:
    found = {leak.column for leak in proof.leaks if leak.model == planted(name)}
    assert found == {LEAKY[name].column, *LEAKY[name].more}


def test_the_tables_of_the_project_have_no_leak(proof: Proof) -> None:
    leaky = {planted(name) for name in LEAKY}
    own = [name for name in proof.rows if name not in leaky]
    assert {"feat_ta", "feat_orderflow", "lbl_high_low", "ds_order_flow", "ds_adaptive"} <= set(own)
    assert [leak for leak in proof.leaks if leak.model in own] == []
    assert min(proof.rows[name] for name in own if name not in ABSENT) > 500


def test_the_cut_offs_lie_in_a_bar_before_a_close_at_midnight_in_a_hole_and_before_arrivals(
    proof: Proof,
) -> None:
    clocks = [cut_off.time() for cut_off in proof.cut_offs]
    assert [clock for clock in clocks if clock.second == 30 and clock.microsecond == 0] != []
    assert [clock for clock in clocks if clock.isoformat().endswith("59:59.999999")] != []
    assert time(0, 0) in clocks
    hole = START.tz_localize(None) + pd.Timedelta(minutes=MINUTES // 3)
    assert any(hole < cut_off < hole + pd.Timedelta(minutes=7) for cut_off in proof.cut_offs)
    late = datetime(2025, 2, 2, 0, 15)
    assert any(late < cut_off < late + timedelta(seconds=2) for cut_off in proof.cut_offs)


def test_every_series_and_the_first_bar_that_differs_are_named(
    database: Path, manifest: dict[str, Any]
) -> None:
    cut_off = datetime(2025, 2, 1, 11, 0, 30)
    proof = check(database, ["feat_off_by_one_lag"], [cut_off], manifest=manifest)
    assert proof.cut_offs == (cut_off,)
    last_bars = {1: (10, 59), 5: (10, 55), 15: (10, 45), 60: (10, 0)}
    assert [
        (leak.market, leak.symbol, leak.interval_minutes, leak.first_opened_at)
        for leak in proof.leaks
    ] == [
        ("um", symbol, minutes, datetime(2025, 2, 1, *last))
        for symbol in SYMBOLS
        for minutes, last in last_bars.items()
    ]
    assert {(leak.rows, leak.cut_off, leak.known) for leak in proof.leaks} == {(1, cut_off, None)}
    assert all(float(leak.whole or "nan") > 0 for leak in proof.leaks)


def test_the_command_names_leaks_and_tells_by_its_exit_code(
    database: Path, planted_root: Path, tmp_path: Path
) -> None:
    moment = ("--cut-off", "2025-02-01T11:00:30")
    leaky = command(database, planted_root, "--model", "feat_off_by_one_lag", *moment)
    assert leaky.returncode == 1, leaky.stderr
    for word in (
        "feat_off_by_one_lag",
        "close_lag_1",
        "BTCUSDT 60m 2025-02-01 10:00:00, in 8 series",
        "NULL",
    ):
        assert word in leaky.stdout
    assert "leaks in 1 of 1 tables" in leaky.stdout
    clean = command(database, planted_root, "--model", "feat_calendar", *moment)
    assert clean.returncode == 0, clean.stderr
    assert clean.stdout.startswith("no leak: ")
    assert command(database, planted_root, "--model", "feat_none").returncode == 2
    missing = command(tmp_path / "nowhere" / "tapehouse.duckdb", planted_root)
    assert missing.returncode == 1
    assert "there is no warehouse" in missing.stderr


def test_recorded_data_gives_no_leak(
    tmp_path: Path, shared_data: Path, manifest: dict[str, Any]
) -> None:
    parts = {
        "spot/klines_BTCUSDT_1m": "open_time between 1722988800000 and 1723248000000",
        "spot/trades_BTCUSDT": "true",
        "um/klines_XRPUSDT_1m": "open_time >= 1750550400000",
        "um/klines_BTCUSDT_5m": "open_time >= 1766534400000",
        "um/funding_XRPUSDT": "true",
        "um/funding_BTCUSDT": "true",
        "um/open_interest_BTCUSDT_5m": "create_time < 1767225600000",
    }
    recorded = tmp_path / "recorded"
    for name, condition in parts.items():
        file = recorded / f"{name}.parquet"
        file.parent.mkdir(parents=True, exist_ok=True)
        source = shared_data / f"{name}.parquet"
        duckdb.sql(f"copy (from '{source}' where {condition}) to '{file}'")
    settings = Settings(database=tmp_path / "tapehouse.duckdb")
    for kind in ("klines", "trades", "funding", "open_interest"):
        assert ingest_files(settings, kind, [recorded]).failures == ()
    own = [name for name in checkable(manifest) if name not in map(planted, LEAKY)]
    proof = check(settings.database, own, manifest=manifest)
    assert proof.leaks == ()
    tables = [name for name in own if not name.startswith("ds_")]
    assert min(proof.rows[name] for name in [*tables, "ds_adaptive"]) > 1_000
    assert datetime(2025, 6, 22) < proof.cut_offs[-1]


def test_without_a_bar_there_is_nothing_to_check(tmp_path: Path, manifest: dict[str, Any]) -> None:
    write_raw(tmp_path / "tapehouse.duckdb", {})
    with pytest.raises(NothingToCheckError, match="tapehouse ingest"):
        check(tmp_path / "tapehouse.duckdb", manifest=manifest)
