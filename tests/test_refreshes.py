"""A warehouse refreshed after each of several landings equals one that was built at once."""

import os
import re
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from dbt_fixtures import run_dbt
from features_fixtures import write_raw
from refreshes_fixtures import landings, write_whole

from ingest import warehouse

LAYERS = ("intermediate", "features", "labels")
pytestmark = pytest.mark.long


@dataclass(frozen=True)
class Wrong:
    """A copy of a model in which a refresh goes wrong: what is replaced in its SQL and its yml."""

    model: str
    layer: str
    sql: tuple[str, str] = ("", "")
    meta: str = "{}"


WRONG = {
    "looks_back_too_little": Wrong(
        "int_bar_oscillators", "intermediate", meta="{lookback_bars: 100}"
    ),
    "forgets_the_gap": Wrong("int_bars", "intermediate"),
    "forgets_the_run": Wrong(
        "int_bars",
        "intermediate",
        ("interval_minutes * (1 - bars_in_run)", "0 * bars_in_run"),
        "{moved_back_by: last_bar_before}",
    ),
    "starts_anew": Wrong(
        "int_bar_sessions", "intermediate", ("where opened_at < {{ changed }}", "where false")
    ),
    "looks_across_a_gap": Wrong(
        "int_volatility", "intermediate", ("if_full(21, ", "if_full(1, "), "{lookback_bars: 21}"
    ),
    "knows_too_late": Wrong("feat_cross_asset", "features"),
    "forgets_the_horizon": Wrong("lbl_return", "labels"),
    "writes_too_little": Wrong(
        "int_bar_returns",
        "intermediate",
        (
            "where opened_at >= {{ changed }} {% endif %}",
            "where opened_at > {{ changed }} {% endif %}",
        ),
        "{lookback_bars: 2}",
    ),
}


def wrong_name(name: str) -> str:
    return f"{WRONG[name].model.split('_')[0]}_{name}"


@pytest.fixture(scope="module")
def project(project_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the dbt project with the wrong models in it."""
    root = tmp_path_factory.mktemp("wrong")
    shutil.copy(project_root / "profiles.yml", root)
    ignored = shutil.ignore_patterns("target", "logs")
    shutil.copytree(project_root / "dbt_project", root / "dbt_project", ignore=ignored)
    for name, wrong in WRONG.items():
        folder = root / "dbt_project" / "models" / wrong.layer
        sql = (folder / f"{wrong.model}.sql").read_text()
        assert wrong.sql[0] in sql
        (folder / f"{wrong_name(name)}.sql").write_text(sql.replace(*wrong.sql))
        (folder / f"{wrong_name(name)}.yml").write_text(
            f"models: [{{name: {wrong_name(name)}, config: {{meta: {wrong.meta}}}}}]"
        )
    return root


def started(database: Path, project: Path, *arguments: str) -> subprocess.Popen[str]:
    """Start to run the feature library on a warehouse."""
    command = [
        *(str(Path(sys.executable).parent / "dbt"), "run"),
        *("--select", *(f"+path:models/{layer}" for layer in LAYERS), *arguments),
        *("--project-dir", str(project / "dbt_project"), "--profiles-dir", str(project)),
        *("--target-path", str(database.parent / "target")),
        *("--log-path", str(database.parent / "logs")),
    ]
    environment = os.environ | {"TAPEHOUSE_DATABASE": str(database)}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


def run(database: Path, project: Path, *arguments: str) -> None:
    process = started(database, project, *arguments)
    output, _ = process.communicate()
    assert process.returncode == 0, output


def run_until_killed(database: Path, project: Path, *, after: str) -> None:
    """Run the feature library and kill dbt when it says that a model was written."""
    with started(database, project) as process:
        assert process.stdout is not None
        assert any(
            f"OK created sql incremental model main.{after}" in line for line in process.stdout
        )
        process.send_signal(signal.SIGKILL)


def land(database: Path, tables: dict[str, pa.Table]) -> None:
    with duckdb.connect(database) as connection:
        connection.execute("set timezone = 'UTC'")
        for name, rows in tables.items():
            connection.register("rows", rows)
            connection.execute(f"insert into raw.{name} by name select * from rows")
            connection.unregister("rows")


@pytest.fixture(scope="module")
def warehouses(
    project: Path,
    project_root: Path,
    manifest: dict[str, Any],
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Path, Path]:
    """A warehouse refreshed after each landing and one built from all, in many slices of time."""
    working = tmp_path_factory.mktemp("refreshes")
    shared = project_root.parent / "shared" / "data"
    events = {
        source["name"]: source["config"]["event_time"]
        for source in manifest["sources"].values()
        if source["config"]["event_time"]
    }
    write_whole(working / "whole.duckdb", shared if shared.is_dir() else None, events)
    refreshed, rebuilt = working / "refreshed" / "t.duckdb", working / "rebuilt" / "t.duckdb"
    for database in (refreshed, rebuilt):
        database.parent.mkdir()
        write_raw(database, {})
    first, second, third = landings(working / "whole.duckdb", events)
    for tables in (first, second, third):
        land(rebuilt, tables)
    with ThreadPoolExecutor() as pool:
        building = pool.submit(run, rebuilt, project, "--vars", "slice_rows: 20000")
        land(refreshed, first)
        run(refreshed, project)
        land(refreshed, second)
        run_until_killed(refreshed, project, after="int_bars")
        run(refreshed, project, "--exclude", "int_bar_windows+", "lbl_return")
        land(refreshed, third)
        run(refreshed, project, "--vars", "slice_rows: 5000")
        building.result()
    return refreshed, rebuilt


def differing(warehouses: tuple[Path, Path]) -> dict[str, int]:
    """How many rows of each table are in one of the warehouses only."""
    found = {}
    with duckdb.connect() as connection:
        for name, database in zip(("refreshed", "rebuilt"), warehouses, strict=True):
            connection.execute(f"attach '{database}' as {name} (read_only)")
        for (table,) in connection.execute(
            "select table_name from duckdb_tables() where database_name = 'rebuilt' "
            "and schema_name = 'main' and regexp_matches(table_name, '^(int|feat|lbl)_')"
        ).fetchall():
            one, other = f"refreshed.main.{table}", f"rebuilt.main.{table}"
            ((rows,),) = connection.execute(
                f"select (select count(*) from (from {one} except all from {other})) "
                f"+ (select count(*) from (from {other} except all from {one}))"
            ).fetchall()
            found[table] = rows
    return found


def test_refreshed_tables_equal_rebuilt_ones_and_wrong_ones_do_not(
    warehouses: tuple[Path, Path],
) -> None:
    rows = differing(warehouses)
    assert {name for name, count in rows.items() if count} == {wrong_name(name) for name in WRONG}
    assert len(rows) > 50


def test_long_tables_are_written_in_slices(warehouses: tuple[Path, Path]) -> None:
    for database, written in zip(
        warehouses, ('"int_bar_sessions__dbt_tmp', '"int_bar_sessions"'), strict=True
    ):
        log = (database.parent / "logs" / "dbt.log").read_text()
        assert re.search(f"insert into [^ ]*{written}[^ ]* by name", log)


def test_a_refresh_writes_from_the_first_changed_day_on(warehouses: tuple[Path, Path]) -> None:
    with duckdb.connect(warehouses[0], read_only=True) as connection:
        written = connection.execute(
            "select model_name, max_by(changed_from, number) as last_from from refreshes "
            "group by model_name having last_from < timestamp '2025-06-02'"
        ).fetchall()
    assert written == []


def test_entries_that_a_later_one_includes_are_dropped_by_the_next_run(tmp_path: Path) -> None:
    database = tmp_path / "t.duckdb"
    with warehouse.writing(database) as connection:
        connection.execute(
            """
            create table main.refreshes as
            select model_name, day::timestamp as changed_from, number::bigint as number, '' as code
            from (values
                ('a', date '2024-01-05', 1), ('a', date '2024-01-03', 2),
                ('b', date '2024-01-09', 3),
                ('a', date '2024-01-03', 4), ('a', date '2024-01-09', 5)
            ) as entries (model_name, day, number)
            """
        )
    run_dbt(database, "run", "--select", "stg_klines")
    with warehouse.reading(database) as connection:
        kept = connection.execute("select number from refreshes order by number").fetchall()
    assert kept == [(3,), (4,), (5,)]
