"""A refresh on BigQuery reads the partitions of the days that it needs, not the whole history."""

from pathlib import Path
from typing import Any

import pytest
from bigquery_costs import days_read, scans
from bigquery_project import Manifest, compiled_for_bigquery, nodes_of
from bigquery_status import Status

from ingest.raw_tables import raw_tables

HISTORY = 3650
CHANGED_FROM = "timestamp '2025-06-01 00:00:00'"
BOUND = f"opened_at >= timestamp_sub({CHANGED_FROM}, interval 2880 minute)"
# Reads of a whole history that are known, with their reason: some columns of each, and the guide
# counts them. A model that is not named here must stay below a fifth of the history.
STATE = "reads the last state before the change from its own table"
BY_DAY = "finds double ids by the UTC day, an expression of the partition's column"
KNOWN = {
    "int_bars": {"int_bars": STATE},
    "int_bar_sessions": {"int_bar_sessions": STATE},
    "int_trade_flows": {"int_trade_flows": STATE},
    "feat_orderflow": {"feat_orderflow": STATE},
    "int_macro_moments": {"int_bars": "asks by available_at which bars saw a value"},
    "int_news_changes": dict.fromkeys(("news", "news_scores"), "asks by the time of arrival"),
    "int_garch_variances": {"garch_parameters": "parameters hold until the next ones: few rows"},
    "int_trade_minutes": {"trades": BY_DAY},
    "int_trade_sizes": {"trades": BY_DAY},
    "int_book_bars": {
        "books": "is partitioned by arrival and asked by the time of the book",
        "book_gaps": "has a row per lost book, few",
    },
    "feat_ta": dict.fromkeys(
        (
            *("int_bar_oscillators", "int_bar_sessions"),
            *("int_volatility_regimes", "int_volume_profile"),
        ),
        "reads them by a view, whose joins alone bound them",
    ),
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
    "one side of a union": f"""
        select opened_at from int_bars where {BOUND} union all select opened_at from int_bars""",
}


def partition_columns(manifest: Manifest) -> dict[str, str]:
    models = {
        node["name"]: node["config"]["partition_by"]["field"]
        for node in nodes_of(manifest, "model").values()
        if node["config"].get("partition_by")
    }
    return models | {table.name: table.event_time for table in raw_tables().values()}


def most_days(sql: str, views: dict[str, str], columns: dict[str, str]) -> dict[str, int]:
    """Return, of each partitioned table that a query reads, the most days that a read touches."""
    days: dict[str, int] = {}
    for scan in scans(sql, views):
        if scan.table in columns:
            found = days_read(scan, columns[scan.table], CHANGED_FROM, HISTORY)
            days[scan.table] = max(found, days.get(scan.table, 0))
    return days


@pytest.fixture(scope="module")
def read_days(
    project_root: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, dict[str, int]]:
    """The days that each model's refresh reads of each table."""
    manifest = compiled_for_bigquery(
        project_root, tmp_path_factory.mktemp("refreshed"), changed_from=CHANGED_FROM
    )
    models: list[dict[str, Any]] = list(nodes_of(manifest, "model").values())
    views = {
        node["name"]: node["compiled_code"]
        for node in models
        if node["config"]["materialized"] == "view"
    }
    columns = partition_columns(manifest)
    return {
        node["name"]: most_days(node["compiled_code"], views, columns)
        for node in models
        if node["config"].get("incremental_strategy") == "insert_overwrite"
        and node["config"]["materialized"] == "incremental"
    }


def test_a_refresh_reads_the_days_that_it_needs(
    read_days: dict[str, dict[str, int]], bigquery_status: Status
) -> None:
    for model, days in read_days.items():
        most = max(days.values(), default=0)
        bigquery_status.setdefault(model, {})["days"] = "all" if most == HISTORY else str(most)
    assert len(read_days) > 40
    whole = {
        model: {table: found for table, found in days.items() if found > HISTORY / 5}
        for model, days in read_days.items()
    }
    found = {model: set(tables) for model, tables in whole.items() if tables}
    assert found == {model: set(tables) for model, tables in KNOWN.items()}


@pytest.mark.parametrize("name", PLANTED)
def test_a_model_that_reads_its_whole_history_is_found(name: str) -> None:
    columns = {"int_bars": "opened_at", "int_klines": "opened_at"}
    assert HISTORY in most_days(PLANTED[name], {}, columns).values()


def test_a_bound_reaches_the_table_through_views_and_joins() -> None:
    sql = f"""
        with bars as (select symbol, opened_at as at from renamed)
        select bars.at from bars inner join int_klines as k on bars.at = k.opened_at
        where bars.at >= timestamp_sub({CHANGED_FROM}, interval 2880 minute)
        and k.opened_at >= {CHANGED_FROM}"""
    views = {
        "renamed": "select * from int_bars qualify row_number() over (partition by opened_at"
        " order by symbol) = 1"
    }
    columns = {"int_bars": "opened_at", "int_klines": "opened_at"}
    assert most_days(sql, views, columns) == {"int_bars": 3, "int_klines": 1}
