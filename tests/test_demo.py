"""The demo finds a planted edge, finds none where there is none, and survives being killed."""

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
from serving_fixtures import signals

from ingest import warehouse
from ingest.settings import Settings

# At this scale a strong edge is a GO with room to spare, in about twenty seconds.
SMALL = ("--days", "10", "--symbols", "BTCUSDT,ETHUSDT,SOLUSDT", "--no-tests")
TINY = ("--days", "4", "--symbols", "BTCUSDT,ETHUSDT", "--no-tests", "--edge", "1")
BOUND_OF_AN_EDGE = 0.6


def demo(database: Path, *options: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "orchestration.cli", "demo", *options],
        # Who is killed leaves temporary files behind.
        env=os.environ
        | {"TAPEHOUSE_DATABASE": str(database), "TMPDIR": str(database.parent.parent)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finished(process: "subprocess.Popen[str]") -> str:
    output, _ = process.communicate()
    assert process.returncode == 0, output
    return output


def roc_auc(database: Path) -> dict[str, float]:
    with warehouse.reading(database) as connection:
        return dict(
            connection.execute(
                "select strategy, roc_auc from trd_evaluation where roc_auc is not null"
            ).fetchall()
        )


@pytest.mark.long
def test_a_strong_planted_edge_is_a_go(tmp_path: Path) -> None:
    database = tmp_path / "tapehouse.duckdb"
    report = finished(demo(database, *SMALL, "--edge", "1", "--seed", "1"))
    assert "Verdict: GO, 13 of 13 criteria passed." in report
    found = roc_auc(database)
    assert found["model"] > BOUND_OF_AN_EDGE > found["shuffled_labels"]


@pytest.mark.long
def test_a_market_without_an_edge_is_a_no_go(tmp_path: Path) -> None:
    database = tmp_path / "tapehouse.duckdb"
    report = finished(demo(database, *SMALL, "--edge", "0", "--seed", "2"))
    assert "Verdict: NO-GO" in report
    assert "without an edge" in report
    assert roc_auc(database)["model"] < BOUND_OF_AN_EDGE


@pytest.mark.long
def test_a_demo_killed_anywhere_ends_like_one_that_was_not(tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole" / "t.duckdb", tmp_path / "killed" / "t.duckdb"
    started = time.monotonic()
    finished(demo(whole, *TINY))
    duration = time.monotonic() - started
    moments = random.Random(7)
    for _ in range(3):
        process = demo(killed, *TINY)
        time.sleep(moments.uniform(0.2, 0.9) * duration)
        process.kill()
        process.communicate()
    finished(demo(killed, *TINY))
    assert roc_auc(whole)["model"] > BOUND_OF_AN_EDGE
    assert signals(Settings(database=killed)) == signals(Settings(database=whole))


@pytest.mark.parametrize("name", ["tapehouse", "other"])
def test_the_demo_leaves_a_folder_alone_with_a_warehouse_that_it_did_not_make(
    tmp_path: Path, name: str
) -> None:
    database = tmp_path / "tapehouse.duckdb"
    with warehouse.writing(database) as connection:
        connection.execute("create table mine as select 1 as one")
    process = demo(tmp_path / f"{name}.duckdb", *TINY)
    output, _ = process.communicate()
    assert process.returncode == 1
    assert output.startswith(f"Error: {database} was not made by the demo")
    with warehouse.reading(database) as connection:
        assert connection.execute("select one from mine").fetchall() == [(1,)]
