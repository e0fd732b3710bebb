"""Copies that are killed, broken or overtaken by their source end in equal warehouses."""

import os
import random
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import pytest
from bigquery_emulator import Emulator
from cloud_faults import faulty
from cloud_fixtures import rows_of
from test_sync import DAY, contents, fill

from ingest import warehouse
from ingest.bigquery import BigQuery
from ingest.raw_tables import raw_tables
from ingest.settings import PROJECT_ROOT, Settings, Target
from ingest.stores import CloudStore, FileStore, Store
from ingest.sync import sync
from ingest.warehouse import CloudError

END = datetime(2025, 1, 1, tzinfo=UTC)
TRADES = raw_tables()["trades"]


@pytest.fixture
def filled(cloud_settings: Settings) -> Settings:
    fill(cloud_settings.database)
    return cloud_settings


@pytest.mark.parametrize("target", ["bigquery", "duckdb"])
def test_a_copy_that_is_killed_anywhere_is_finished_by_the_next(
    filled: Settings,
    bigquery_emulator: Emulator,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    target: Target,
) -> None:
    if os.environ["TAPEHOUSE_BIGQUERY_PROJECT"] != bigquery_emulator.project:
        pytest.skip("faults are made in front of the emulator")
    names = ["trades", "books"]
    if target == "duckdb":
        sync(filled, "bigquery", tables=names)
    back = filled.model_copy(update={"database": tmp_path / "back.duckdb"})
    where = filled if target == "bigquery" else back
    options = [part for name in names for part in ("--table", name)]
    command = [sys.executable, "-m", "orchestration.cli", "sync", "--to", target, *options]
    moments = random.Random(target)
    with faulty(bigquery_emulator) as wire:
        environment = os.environ | wire.environment | {"TAPEHOUSE_DATABASE": str(where.database)}
        killed = 0
        for earliest, latest in ((5, 15), (16, 26)):
            has_come = threading.Event()
            wire.hold[""] = (moments.randint(earliest, latest), has_come)
            with subprocess.Popen(command, cwd=PROJECT_ROOT, env=environment) as process:
                while not has_come.wait(0.05) and process.poll() is None:
                    pass
                process.kill()
            killed += process.returncode == -9
            wire.hold.clear()
    assert killed
    done = sync(where, target, tables=names)
    assert not any(compared.missing or compared.extra for compared in done)
    if target == "duckdb":
        assert contents(back.database) == contents(filled.database)
    counts = "select (select count(*) from trades), (select count(*) from books)"
    assert rows_of(filled, counts) == [(20, 1)]


@pytest.mark.parametrize("kind", [CloudStore, FileStore])
def test_a_broken_parquet_file_leaves_nothing_and_a_whole_one_lands_after_it(
    filled: Settings, tmp_path: Path, kind: type[Store]
) -> None:
    whole, broken = tmp_path / "whole.parquet", tmp_path / "broken.parquet"
    FileStore(filled).export(TRADES, DAY, END, whole)
    content = bytearray(whole.read_bytes())
    content[4:-200] = bytes(len(content) - 204)
    broken.write_bytes(content)
    empty = filled.model_copy(update={"database": tmp_path / "empty.duckdb"})
    store = kind(empty)
    store.prepare(is_source=False)
    with pytest.raises((CloudError, duckdb.Error)):
        store.append(TRADES, broken, "part")
    assert store.digests(TRADES, DAY, END) == {}
    store.append(TRADES, whole, "part")
    assert store.digests(TRADES, DAY, END) == FileStore(filled).digests(TRADES, DAY, END)


def test_a_job_is_done_once_until_its_rows_are_seen_to_be_gone(
    filled: Settings, tmp_path: Path
) -> None:
    file = tmp_path / "part.parquet"
    FileStore(filled).export(TRADES, DAY, END, file)
    store = CloudStore(filled)
    store.prepare(is_source=False)

    def count() -> int:
        return sum(rows for rows, _ in store.digests(TRADES, DAY, END).values())

    for _ in range(3):
        assert count() == 0
        store.append(TRADES, file, "part")
        # A run that begins while the job is at work compares before it has ended.
        store.append(TRADES, file, "part")
        assert count() == 20
        BigQuery(filled).query("delete from trades where true")


def test_what_was_deleted_is_copied_again(filled: Settings) -> None:
    for _ in range(2):
        (trades,) = sync(filled, "bigquery", tables=["trades"])
        assert (trades.copied, trades.missing) == (20, ())
        BigQuery(filled).query("delete from trades where true")


def test_rows_that_come_to_the_source_during_a_copy_are_told_and_copied_by_the_next(
    filled: Settings,
) -> None:
    def arrive(step: str) -> None:
        if " to " in step:
            with warehouse.writing(filled.database) as connection:
                connection.execute(
                    "insert into raw.trades by name "
                    "select * replace (99 as trade_id) from raw.trades where trade_id = 0"
                )
                connection.execute(
                    "insert into raw.trades by name select 'BTCUSDT' as symbol, "
                    "100 as trade_id, $late as transact_time",
                    {"late": DAY + timedelta(days=3)},
                )

    (first,) = sync(filled, "bigquery", tables=["trades"], on_step=arrive)
    assert (first.missing, {day for day, _ in first.extra}) == ((), {DAY.date()})
    (second,) = sync(filled, "bigquery", tables=["trades"])
    assert (second.copied, second.missing, second.extra) == (1, (), ())
    counts = "select count(*), count(distinct concat(symbol, trade_id)) from trades"
    assert rows_of(filled, counts) == [(23, 21)]
