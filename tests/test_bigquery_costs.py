"""A refresh on BigQuery reads the bytes that it needs, not the whole history."""

import json
from collections import defaultdict
from dataclasses import replace
from datetime import date, datetime, timedelta
from pathlib import Path

import pytest
from bigquery_project import Manifest, nodes_of, raw_tables
from bigquery_status import Status
from dbt_fixtures import NO_ACCOUNT, OFFLINE_BIGQUERY, run_dbt
from features_fixtures import write_raw
from typer.testing import CliRunner

from ingest import warehouse
from ingest.bigquery import BigQuery
from ingest.raw_tables import raw_tables as definitions
from ingest.settings import Settings
from orchestration.cli import app
from orchestration.costs import LEAST_BILLED, Cost, Refresh, costs, literal, refresh_of
from orchestration.sizes import Table, cloud_tables, duckdb_tables, type_bytes

SINCE = datetime(2025, 6, 1)
HISTORY = 3650
ROWS_A_DAY = 10_000
BOUND = f"opened_at >= timestamp_sub({literal(SINCE)}, interval 2880 minute)"
# Models that read a whole history, and why is in `meta.reads_whole` of each.
WHOLE = {
    "int_news_changes": {"news", "news_scores"},
    "int_book_bars": {"book_gaps"},
    "trd_evaluation": {"trd_positions"},
}
# Nodes whose tests do.
WHOLE_TESTS = {
    **{f"stg_{name}": {name} for name in ("book_gaps", "news", "news_scores", "signals")},
    "stg_served_features": {"served_features"},
    "stg_trades": {"trades"},
    **{f"sig_order_flow{name}": {f"pred_order_flow{name}"} for name in ("", "_shuffled")},
}
PLANTED = {
    "no filter": "select opened_at, close_price from int_bars",
    "a filter after a window": f"""
        with lagged as (select *, lag(close_price) over (order by opened_at) from int_bars)
        select * from lagged where {BOUND}""",
    "a filter that asks a table": """
        select opened_at from int_bars
        where opened_at >= (select max(opened_at) from int_klines)""",
    "a filter on something computed": f"""
        with days as (select timestamp_trunc(opened_at, day) as opened_at from int_bars)
        select * from days where {BOUND}""",
    "a cast that no page of BigQuery's says to prune": f"""
        with days as (select *, cast(opened_at as date) as day from int_bars)
        select * from days where day >= date({literal(SINCE)})""",
    "one side of a union": f"""
        select opened_at from int_bars where {BOUND} union all select opened_at from int_bars""",
    "another column's filter": f"select * from int_bars where available_at >= {literal(SINCE)}",
}


def history(widths: dict[str, float], column: str | None) -> Table:
    """Ten years of a table, ten thousand rows a day; what lies by no day has that many rows."""
    days = [date(2025, 6, 1) - timedelta(days=number) for number in range(HISTORY if column else 1)]
    return Table(widths, dict.fromkeys(days, ROWS_A_DAY), column)


BARS = {"opened_at": 8, "available_at": 8, "close_price": 8, "symbol": 10}


def planted(sql: str, **views: str) -> list[Cost]:
    columns = {"int_bars": "opened_at", "int_klines": "opened_at"}
    tables = {name: history(BARS, column) for name, column in columns.items()}
    return list(costs(Refresh(SINCE, {"planted": sql}, views, columns), tables))


@pytest.fixture(scope="module")
def refreshed(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    working = tmp_path_factory.mktemp("refreshed")
    variables = ("--vars", json.dumps({"changed_from": literal(SINCE)}))
    run_dbt(working / "tapehouse.duckdb", "compile", *OFFLINE_BIGQUERY, *variables, **NO_ACCOUNT)
    manifest: Manifest = json.loads((working / "target" / "manifest.json").read_text())
    return manifest


@pytest.fixture(scope="module")
def found(refreshed: Manifest, project_root: Path) -> list[Cost]:
    """What each model's refresh reads of ten years of every table."""
    refresh = refresh_of(refreshed, SINCE)
    raw = {
        name.split(".")[-1]: types for name, types in raw_tables(refreshed, project_root).items()
    }
    models = {
        node["name"]: dict.fromkeys(node["columns"], "FLOAT64")
        for node in nodes_of(refreshed, "model").values()
    }
    tables = {
        name: history(
            {column: type_bytes(kind) for column, kind in types.items()},
            refresh.partition_columns.get(name),
        )
        for name, types in (raw | models).items()
        if name not in refresh.views
    }
    return list(costs(refresh, tables))


def test_a_refresh_reads_a_bounded_part_of_the_history(
    found: list[Cost], bigquery_status: Status
) -> None:
    refreshed = [cost for cost in found if not cost.is_rebuilt and cost.kind != "tested"]
    most: dict[str, int] = defaultdict(int)
    for cost in refreshed:
        if not cost.reason:
            most[cost.model] = max(most[cost.model], cost.days)
    for model, days in most.items():
        bigquery_status.setdefault(model, {})["days"] = "all" if days == HISTORY else str(days)
    assert [(cost.model, cost.table) for cost in refreshed if cost.is_too_much] == []
    assert {model: days for model, days in most.items() if days > HISTORY / 10} == {}
    assert len(most) > 40
    bounded = [cost for cost in refreshed if not cost.reason]
    read, history = (sum(getattr(c, kind) for c in bounded) for kind in ("read", "history"))
    assert 0 < read < history / 40


def test_models_that_read_everything_say_why(found: list[Cost]) -> None:
    whole: dict[str, dict[str, set[str]]] = {"tested": defaultdict(set), "": defaultdict(set)}
    for cost in found:
        is_whole = not cost.is_bounded and not cost.is_rebuilt
        if is_whole and (cost.reason or cost.is_too_much):
            kind = cost.kind if cost.kind == "tested" else ""
            whole[kind][cost.model].add(cost.table)
    assert whole == {"tested": WHOLE_TESTS, "": WHOLE}


def test_data_tests_read_the_days_that_changed(found: list[Cost]) -> None:
    tests = [cost for cost in found if cost.kind == "tested"]
    assert len(tests) > 500
    assert [(cost.model, cost.table) for cost in tests if cost.is_too_much] == []
    assert {cost.kind for cost in found} == {
        *("refreshed", "written", "made anew", "tested", "asked")
    }
    bounded = [cost for cost in tests if not cost.reason and not cost.is_rebuilt]
    read, history = (sum(getattr(c, kind) for c in bounded) for kind in ("read", "history"))
    assert 0 < read < history / 400
    # Next to what BigQuery bills at the least for each.
    assert sum(cost.billed for cost in bounded) < 1.2 * len(bounded) * LEAST_BILLED


@pytest.mark.parametrize("name", PLANTED)
def test_a_test_that_reads_a_whole_history_is_found(name: str) -> None:
    columns = {"int_bars": "opened_at", "int_klines": "opened_at"}
    tables = {name: history(BARS, column) for name, column in columns.items()}
    tests = {"planted": PLANTED[name]}
    refresh = Refresh(SINCE, {}, {}, columns, tests=tests, tested={"planted": "int_bars"})
    assert any(cost.is_too_much for cost in costs(refresh, tables))
    rebuilt = replace(refresh, rebuilt=frozenset(columns))
    assert not any(cost.is_too_much for cost in costs(rebuilt, tables))


@pytest.mark.parametrize("name", PLANTED)
def test_a_model_that_reads_its_whole_history_is_found(name: str) -> None:
    assert any(cost.is_too_much for cost in planted(PLANTED[name]))


def test_a_bound_reaches_the_table_through_views_and_joins() -> None:
    renamed = "select * from int_bars qualify row_number() over (partition by opened_at) = 1"
    first, second = planted(
        f"""
        with bars as (select symbol, opened_at as at from renamed)
        select bars.at from bars inner join int_klines as k on bars.at = k.opened_at
        where bars.at >= timestamp_sub({literal(SINCE)}, interval 2880 minute)
        and k.opened_at >= {literal(SINCE)}""",
        renamed=renamed,
    )
    assert [(cost.table, cost.days, cost.read) for cost in (first, second)] == [
        ("int_bars", 3, 3 * ROWS_A_DAY * 8),
        ("int_klines", 1, ROWS_A_DAY * 8),
    ]


def test_a_bound_reaches_the_table_by_its_day_and_only_where_windows_keep_it() -> None:
    by_day = """
        with days as (
            select *, date(opened_at) as day from int_bars
            qualify row_number() over (partition by symbol, {} order by close_price) = 1
        )
        select close_price from days where day >= date({})"""
    (kept,) = planted(by_day.format("day", literal(SINCE)))
    (mixed,) = planted(by_day.format("close_price", literal(SINCE)))
    assert (kept.days, kept.read) == (1, ROWS_A_DAY * (8 + 8 + 10))
    assert mixed.is_too_much


def test_what_costs_nothing_or_has_a_reason_is_let_be() -> None:
    sql, columns = PLANTED["no filter"], {"int_bars": "opened_at"}
    small = {"int_bars": Table(BARS, {date(2025, 1, 1): 100}, "opened_at")}
    (few,) = costs(Refresh(SINCE, {"planted": sql}, {}, columns), small)
    assert (few.is_bounded, few.is_too_much, few.billed) == (False, False, 10_000_000)
    large = {"int_bars": history(BARS, "opened_at")}
    reasons = {"planted": {"int_bars": "it is all needed"}}
    (excused,) = costs(Refresh(SINCE, {"planted": sql}, {}, columns, reasons=reasons), large)
    assert (excused.is_too_much, excused.reason) == (False, "it is all needed")


def test_sizes_of_the_duckdb_warehouse_are_those_of_its_rows(tmp_path: Path) -> None:
    database = tmp_path / "tapehouse.duckdb"
    write_raw(database, {})
    with warehouse.writing(database) as connection:
        connection.execute(
            """insert into raw.trades by name
            select 'BTCUSDT' as symbol, 1.5 as price, true as is_buyer_maker,
                timestamptz '2025-01-01 00:00+00' + to_hours(hour) as transact_time
            from range(30) as hours (hour)"""
        )
    found = duckdb_tables(Settings(database=database), {"trades": "transact_time"})["trades"]
    assert found.rows == {date(2025, 1, 1): 24, date(2025, 1, 2): 6}
    assert found.size(["symbol", "price", "is_buyer_maker"], date(2025, 1, 2)) == 6 * (9 + 8 + 1)


def test_sizes_on_bigquery_are_those_of_its_partitions(cloud_settings: Settings) -> None:
    cloud = BigQuery(cloud_settings)
    cloud.create_raw_tables()
    cloud.query(
        """insert into trades (symbol, price, transact_time) values
        ('BTCUSDT', 1.5, '2025-01-01 01:00:00+00'), ('BTCUSDT', 1.5, '2025-01-02 01:00:00+00'),
        ('ETHUSDT', 1.5, '2025-01-02 02:00:00+00')"""
    )
    found = cloud_tables(cloud_settings, {"trades": definitions()["trades"].event_time})["trades"]
    assert found.rows == {date(2025, 1, 1): 1, date(2025, 1, 2): 2}
    assert found.size(["price"]) > 0


@pytest.mark.long
def test_the_command_says_what_a_refresh_reads(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    write_raw(tmp_path / "tapehouse.duckdb", {})
    monkeypatch.setenv("COLUMNS", "160")
    done = CliRunner().invoke(app, ["check", "costs", "--since", "2025-06-01"])
    assert done.exit_code == 0, done.output
    assert "int_klines" in done.stdout
    assert "models that are refreshed, their queries: " in done.stdout
    assert "data tests: " in done.stdout
