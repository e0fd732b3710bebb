"""Planted leaks are named, each by its column, and the project's own tables have none."""

import os
import shutil
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from features_fixtures import START, SYMBOLS, random_market, write_raw
from leaky_models import LEAKY

from ingest.warehouse import WarehouseMissingError
from serving.leaks import Proof, UnknownModelError, check

MINUTES = 1800
EVENTS = {
    "klines": ("open_time", 60),
    "trades": ("transact_time", 0),
    "books": ("transact_time", 0),
    "funding": ("funding_time", 0),
    "open_interest": ("create_time", 0),
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
    return {"funding": funding, "open_interest": readings}


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
    return market


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("leaks") / "tapehouse.duckdb"
    write_raw(path, live_market())
    return path


@pytest.fixture(scope="module")
def proof(database: Path, project_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Proof:
    """The check of a copy of the project with all the leaky models in it."""
    root = tmp_path_factory.mktemp("planted")
    shutil.copy(project_root / "profiles.yml", root)
    ignored = shutil.ignore_patterns("target", "logs")
    project = shutil.copytree(project_root / "dbt_project", root / "dbt_project", ignore=ignored)
    for name, leaky in LEAKY.items():
        model = f"{planted(name)}.sql"
        (project / "models" / leaky.layer / model).write_text(leaky.sql())
    return check(database, project=project)


def planted(name: str) -> str:
    return f"{'lbl' if LEAKY[name].layer == 'labels' else 'feat'}_{name}"


@pytest.mark.parametrize("name", LEAKY)
def test_a_planted_leak_is_named_by_its_column(proof: Proof, name: str) -> None:
    found = {leak.column for leak in proof.leaks if leak.model == planted(name)}
    assert found == {LEAKY[name].column, *LEAKY[name].more}


def test_the_tables_of_the_project_have_no_leak(proof: Proof) -> None:
    leaky = {planted(name) for name in LEAKY}
    own = [name for name in proof.rows if name not in leaky]
    assert {"feat_ta", "feat_microstructure", "feat_orderflow", "lbl_high_low"} <= set(own)
    assert [leak for leak in proof.leaks if leak.model in own] == []
    assert min(proof.rows[name] for name in own) > 10_000
