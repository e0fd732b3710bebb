"""Scoring gives what the batch gives, once."""

import os
import subprocess
import sys
import threading
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from bigquery_emulator import Emulator
from cloud_faults import faulty
from dbt_fixtures import run_dbt
from google.cloud import bigquery
from serving_fixtures import (
    SIGNALS,
    SYMBOLS,
    build,
    built,
    exchange,
    ingest,
    ingested,
    market,
    settings,
    signals,
    start_of_last_day,
)

from ingest import warehouse
from ingest.bigquery import BigQuery
from ingest.settings import Settings
from ingest.simulator import Market, Simulator
from ingest.sync import sync
from orchestration.scoring import scored_bars
from serving.cloud_scoring import merge
from serving.manifest import compiled_manifest, dataset, lineage
from serving.scoring import NotReadyError, score, score_bars
from serving.window import evaluated, raw_rows, raw_start

__all__ = ["built", "exchange", "ingested", "market", "settings"]

NOW = datetime(2025, 1, 1)
NOT_FEATURES = "is_up_5, return_5, label_end_at, split, fold"


def forget(settings: Settings, condition: str) -> int:
    with warehouse.writing(settings.database) as connection:
        ((count,),) = connection.execute(
            f"delete from pred_order_flow where {condition}"
        ).fetchall()
    return int(count)


def test_a_window_in_memory_gives_the_batchs_features_to_the_last_bit(
    settings: Settings, market: Market
) -> None:
    day = start_of_last_day(market)
    manifest = compiled_manifest(settings.database, ["ml_order_flow"])
    chain = lineage(manifest, dataset(manifest, "ml_order_flow"))
    query = (
        f"select * exclude ({NOT_FEATURES}) from {chain.models[-1].relation} "
        f"where opened_at >= timestamp '{day}' order by all"
    )
    with warehouse.reading(settings.database) as connection:
        batch = connection.sql(query).to_arrow_table()
        raw = raw_rows(
            connection, chain, start=day, end=day + timedelta(days=1), interval_minutes=5
        )
    with evaluated(chain, raw) as memory:
        served = memory.sql(query).to_arrow_table()
    assert batch.num_rows == len(SYMBOLS) * 288
    assert served.equals(batch)


def test_forgotten_predictions_come_back_as_the_same_signals(settings: Settings) -> None:
    expected = signals(settings)
    count = forget(settings, "hash(opened_at) % 3 = 0")
    (scored,) = score(settings.database, now=NOW)
    assert (scored.bars, scored.skipped, scored.up + scored.down + scored.flat) == (count, 0, count)
    assert signals(settings) == expected
    assert score(settings.database, now=NOW + timedelta(1))[0].bars == 0


def test_bars_that_landed_after_the_build_get_the_signals_of_the_next_build(
    settings: Settings, market: Market, exchange: Simulator
) -> None:
    before = signals(settings)
    exchange.clock.advance(timedelta(hours=2, minutes=3))
    ingest(settings, market)
    (scored,) = score(settings.database, now=NOW)
    assert scored.bars == len(SYMBOLS) * 24
    assert scored.last_opened_at == market.end.replace(tzinfo=None) + timedelta(minutes=115)
    served = signals(settings)
    assert set(before) < set(served)
    forget(settings, "true")
    build(settings, "--exclude", "config.materialized:ml_model")
    assert signals(settings) == served


def test_two_runs_at_once_write_each_row_once(settings: Settings) -> None:
    expected = signals(settings)
    count = forget(settings, "true")
    command = [sys.executable, "-m", "orchestration.cli", "score"]
    environment = os.environ | {"TAPEHOUSE_DATABASE": str(settings.database)}
    running = [
        subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL) for _ in range(2)
    ]
    assert [process.wait() for process in running] == [0, 0]
    assert signals(settings) == expected
    with warehouse.reading(settings.database) as connection:
        ((rows,),) = connection.execute("select count(*) from pred_order_flow").fetchall()
    assert rows == count


def test_scoring_says_what_to_run_first(tmp_path: Path, ingested: Path) -> None:
    with pytest.raises(warehouse.WarehouseMissingError, match="tapehouse ingest"):
        score(tmp_path / "none.duckdb", now=NOW)
    empty = tmp_path / "tapehouse.duckdb"
    with warehouse.writing(empty):
        pass
    with pytest.raises(NotReadyError, match="has no active model: run `dbt build"):
        score(empty, now=NOW)


def test_scoring_does_not_make_tables(settings: Settings) -> None:
    with warehouse.writing(settings.database) as connection:
        connection.execute("drop table pred_order_flow")
    with pytest.raises(NotReadyError, match="has no pred_order_flow: run `dbt build"):
        score(settings.database, now=NOW)


def test_the_command_fails_in_one_line(tmp_path: Path) -> None:
    environment = os.environ | {"TAPEHOUSE_DATABASE": str(tmp_path / "none.duckdb")}
    command = [sys.executable, "-m", "orchestration.cli", "score"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("Error: there is no warehouse at")
    assert len(done.stderr.splitlines()) == 1


def node(name: str, *parents: str, **config: object) -> dict[str, object]:
    return {
        "name": name,
        "resource_type": "model",
        "database": "d",
        "schema": "main",
        "relation_name": f'"d"."main"."{name}"',
        "compiled_code": f"select '{name}' as name",
        "depends_on": {"nodes": list(parents)},
        "config": {"materialized": "table", "meta": {}} | config,
    }


def test_ancestors_come_before_descendants_and_look_backs_add_up_along_the_longest_path() -> None:
    manifest = {
        "nodes": {
            "last": node("last", "right", "left", "slow", meta={"lookback_bars": 3}),
            "left": node("left", "first", meta={"lookback_bars": 20}),
            "right": node("right", "left", materialized="view", meta={"lookback_bars": 5}),
            "first": node("first", "raw", meta={"lookback_bars": 1, "lookback_minutes": 60}),
            "slow": node("slow", "rates"),
            "other": node("other", "first", meta={"lookback_bars": 99}),
        },
        "sources": {
            "raw": {
                "schema": "raw",
                "relation_name": '"d"."raw"."klines"',
                "config": {"event_time": "open_time"},
            },
            "rates": {
                "schema": "raw",
                "relation_name": '"d"."raw"."rates"',
                "config": {"event_time": "rated_at", "meta": {"lookback_minutes": "540"}},
            },
        },
    }
    chain = lineage(manifest, "last")
    names = [model.name for model in chain.models if model.name != "slow"]
    assert names == ["first", "left", "right", "last"]
    assert [model.name for model in chain.models if model.is_view] == ["right"]
    assert {source.event_time for source in chain.sources} == {"open_time", "rated_at"}
    klines, rates = '"d"."raw"."klines"', '"d"."raw"."rates"'
    assert chain.lookbacks(5) == {klines: 5 * (3 + 5 + 20) + 60, rates: 5 * 3 + 540}
    assert chain.lookbacks(60) == {klines: 60 * (3 + 5 + 20) + 60, rates: 60 * 3 + 540}
    assert chain.lookbacks(120)[klines] == 120 * (3 + 5 + 20 + 1)
    assert chain.schemas == ["main", "raw"]
    with pytest.raises(ValueError, match="has no model missing"):
        lineage(manifest, "missing")


def test_a_window_starts_at_midnight_of_the_day_that_is_needed() -> None:
    assert raw_start(datetime(2025, 1, 3), minutes=0) == datetime(2025, 1, 3)
    assert raw_start(datetime(2025, 1, 3), minutes=1) == datetime(2025, 1, 2)
    assert raw_start(datetime(2025, 1, 3), minutes=1440) == datetime(2025, 1, 2)
    assert raw_start(datetime(2025, 1, 3), minutes=1441) == datetime(2025, 1, 1)


def test_bars_in_bigquery_get_the_signals_of_the_local_warehouse(
    settings: Settings,
    market: Market,
    cloud_settings: Settings,
    bigquery_emulator: Emulator,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    where = cloud_settings.model_copy(update={"database": settings.database})
    last_day = start_of_last_day(market)
    sync(where, "bigquery", tables=["klines", "trades", "books", "funding"])
    deploy(where, f"opened_at < timestamp '{last_day}'")
    if os.environ["TAPEHOUSE_BIGQUERY_PROJECT"] == bigquery_emulator.project:
        kill_while_it_scores(where, bigquery_emulator)
        assert cloud_signals(where, last_day) == []
    reads, queries = watched(monkeypatch)
    (scored,) = score_bars(where, now=NOW)
    assert all(" >= timestamp '20" in read for read in reads), reads
    (question,) = (query for query in queries if "predicted_at = @now" in query)
    assert question.count(f"opened_at >= timestamp '{last_day:%Y-%m-%d %H:%M:%S}+00'") == 2
    expected = [row for row in signals(settings) if row[4] >= last_day]
    assert (scored.bars, scored.skipped) == (len(expected), 0)
    assert scored.bars == len(SYMBOLS) * 288
    assert cloud_signals(where, last_day) == expected
    reads.clear()
    queries.clear()
    assert score_bars(where, now=NOW + timedelta(1))[0].bars == 0
    assert [len(read.split(" where ")[0].split()) for read in reads] == [6, 5]
    assert not [query for query in queries if "predicted_at = @now" in query]


def watched(monkeypatch: pytest.MonkeyPatch) -> tuple[list[str], list[str]]:
    """Return lists that tell what is read from now on: columns and condition, and queries."""
    reads: list[str] = []
    queries: list[str] = []
    batches, query = BigQuery.batches, BigQuery.query

    def read(cloud: BigQuery, table: Any, *, columns: Any = (), where: str = "") -> Any:
        reads.append(f"{' '.join(columns)} where {where}")
        return batches(cloud, table, columns=columns, where=where)

    def ask(cloud: BigQuery, sql: str, parameters: Any = ()) -> Any:
        queries.append(sql)
        return query(cloud, sql, parameters)

    monkeypatch.setattr(BigQuery, "batches", read)
    monkeypatch.setattr(BigQuery, "query", ask)
    return reads, queries


def test_the_asset_of_scores_passes_where_no_model_is_but_in_bigquery(tmp_path: Path) -> None:
    where = Settings(target="bigquery", database=tmp_path / "none.duckdb")
    run = dg.materialize([scored_bars], resources={"settings": where})
    (event,) = run.get_asset_materialization_events()
    assert event.materialization.metadata["bars"].value == 0
    local = where.model_copy(update={"target": "duckdb"})
    with pytest.raises(warehouse.WarehouseMissingError):
        dg.materialize([scored_bars], resources={"settings": local})


def kill_while_it_scores(where: Settings, emulator: Emulator) -> None:
    """Kill the job between its two merges: of thresholds, and of predictions that are loaded."""
    command = [sys.executable, "-m", "orchestration.cli", "score", "--target", "bigquery"]
    with faulty(emulator) as wire:
        has_come = threading.Event()
        wire.hold["POST /bigquery/v2/projects/tapehouse-emulated/jobs"] = (1, has_come)
        environment = os.environ | wire.environment | {"TAPEHOUSE_DATABASE": str(where.database)}
        with subprocess.Popen(command, env=environment) as process:
            while not has_come.wait(0.05) and process.poll() is None:
                pass
            process.kill()
        assert process.returncode == -9


def test_scoring_in_bigquery_says_what_to_build_first(
    settings: Settings, cloud_settings: Settings
) -> None:
    where = cloud_settings.model_copy(update={"database": settings.database})
    with pytest.raises(NotReadyError, match="dbt_project --target bigquery` first"):
        score_bars(where, now=NOW)


def deploy(where: Settings, condition: str) -> None:
    """Make the tables and the view that `dbt build` makes, with the predictions of some bars."""
    cloud = BigQuery(where)
    cloud.client.create_dataset(where.bigquery_dataset)
    types = {"VARCHAR": "STRING", "TIMESTAMP": "TIMESTAMP", "DOUBLE": "FLOAT64", "BOOLEAN": "BOOL"}
    for name, rows in (("pred_order_flow", condition), ("sig_thresholds", "false")):
        with warehouse.reading(where.database) as connection:
            columns = connection.execute(f"describe {name}").fetchall()
            table = connection.sql(f"select * from {name} where {rows}").to_arrow_table()
        fields = [
            bigquery.SchemaField(name, types.get(kind, "INT64")) for name, kind, *_ in columns
        ]
        made = cloud.client.create_table(bigquery.Table(cloud.model(name), schema=fields))
        merge(cloud, made, table, ["model_name", "opened_at"])
    run_dbt(where.database, "run", "--select", "sig_order_flow", "--target", "bigquery")


def cloud_signals(where: Settings, since: datetime) -> list[tuple[object, ...]]:
    sql = SIGNALS.replace("from sig", f"from {where.bigquery_dataset}.sig").replace(
        "all", "1, 2, 3, 4, 5"
    )
    rows = [tuple(row.values()) for row in BigQuery(where).query(sql).to_pylist()]
    plain = [
        tuple(value.replace(tzinfo=None) if isinstance(value, datetime) else value for value in row)
        for row in rows
    ]
    return [row for row in plain if row[4] >= since]
