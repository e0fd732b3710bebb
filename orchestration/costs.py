"""What a refresh of the project on BigQuery reads, in bytes, and what would read too much.

Rows of the partitions touched times the width of the columns read: of each model's query, of the
MERGE that writes its rows, of its data tests. Nothing is run: the project's statements are compiled
without a connection, as a refresh since a moment would send them.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import duckdb
import sqlglot

from ingest.raw_tables import raw_tables
from ingest.settings import PROJECT_ROOT
from orchestration.scans import parsed_scans
from orchestration.sizes import Table
from serving.manifest import CompilationError

# BigQuery bills at least that much of each table that a query names.
LEAST_BILLED = 10_000_000


@dataclass(frozen=True)
class Cost:
    """What a statement of a refresh reads of a table.

    Parameters
    ----------
    model, table : str
        Their names.
    kind : {"refreshed", "written", "made anew", "tested", "asked"}
        What the statement does to the model: it queries for its rows, writes them, makes all of
        them, tests them, or asks the bookkeeping what to do.
    read, history : int
        Bytes of the columns read: in the days that are read, and in all days.
    days, all_days : int
        Those that are read, and those there are.
    is_bounded : bool
        Whether a constant leaves out the days before.
    is_rebuilt : bool
        Whether the model or the table is made anew, and so read whole by its nature.
    reason : str
        Why the whole history is needed (``meta.reads_whole`` of model or test), else empty.
    """

    model: str
    table: str
    kind: str
    read: int
    history: int
    days: int
    all_days: int
    is_bounded: bool
    is_rebuilt: bool
    reason: str = ""

    @property
    def billed(self) -> int:
        """The bytes billed."""
        return max(self.read, LEAST_BILLED)

    @property
    def is_too_much(self) -> bool:
        """Whether a refresh would scan a whole history that costs something, without a reason."""
        is_excused = self.is_bounded or self.is_rebuilt or bool(self.reason)
        return not is_excused and self.history > LEAST_BILLED


@dataclass(frozen=True)
class Refresh:
    """The statements of a refresh: of each model and test its own, and of the views they may name.

    `tested` has the model of each test, `written` the partitions' bound of each model whose rows
    are replaced: a constant of GoogleSQL. `asking` are models and the tables of the
    bookkeeping that are asked about them, once for the model and once for its tests.
    """

    since: datetime
    models: Mapping[str, str]
    views: Mapping[str, str]
    partition_columns: Mapping[str, str]
    rebuilt: frozenset[str] = frozenset()
    reasons: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    tests: Mapping[str, str] = field(default_factory=dict)
    tested: Mapping[str, str] = field(default_factory=dict)
    written: Mapping[str, str] = field(default_factory=dict)
    asking: Sequence[tuple[str, str]] = ()


def literal(moment: datetime) -> str:
    """Return a moment as the refreshes of the project write it."""
    return f"timestamp '{moment:%Y-%m-%d %H:%M:%S}'"


def compiled_refresh(since: datetime, *, project_root: Path = PROJECT_ROOT) -> Refresh:
    """Compile the project for BigQuery as a refresh since a UTC midnight, without a connection.

    Raises
    ------
    CompilationError
        If dbt refuses the project.
    """
    with TemporaryDirectory(prefix="tapehouse-costs-") as directory:
        done = subprocess.run(
            [
                *(str(Path(sys.executable).with_name("dbt")), "--quiet", "compile"),
                *("--target", "bigquery", "--no-populate-cache", "--no-introspect"),
                *("--vars", json.dumps({"changed_from": literal(since)})),
                *("--project-dir", str(project_root / "dbt_project")),
                *("--profiles-dir", str(project_root)),
                *("--target-path", directory, "--log-path", directory),
            ],
            env={"TAPEHOUSE_BIGQUERY_PROJECT": "tapehouse"}
            | os.environ
            | {"TAPEHOUSE_BIGQUERY_METHOD": "oauth-secrets", "TAPEHOUSE_BIGQUERY_TOKEN": "offline"},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise CompilationError(f"dbt could not compile the project:\n{done.stdout}")
        return refresh_of(json.loads(Path(directory, "manifest.json").read_text()), since)


def refresh_of(manifest: Mapping[str, Any], since: datetime) -> Refresh:
    """Return the statements of a manifest that was compiled as a refresh since a moment."""
    nodes = [n for n in manifest["nodes"].values() if n["resource_type"] == "model"]
    tests = [n for n in manifest["nodes"].values() if n["resource_type"] == "test"]
    names = {n["unique_id"]: n["name"] for n in nodes}
    views = {n["name"] for n in nodes if n["config"]["materialized"] == "view"}
    refreshed = {n["name"] for n in nodes if n["config"]["materialized"] == "incremental"}
    codes = {n["name"]: n["compiled_code"] for n in nodes}
    return Refresh(
        since,
        {name: code for name, code in codes.items() if name not in views},
        {name: codes[name] for name in views},
        {table.name: table.event_time for table in raw_tables().values()}
        | {
            n["name"]: n["config"]["partition_by"]["field"]
            for n in nodes
            if n["config"].get("partition_by")
        },
        frozenset(codes.keys() - views - refreshed),
        {n["name"]: n["config"]["meta"].get("reads_whole", {}) for n in [*nodes, *tests]},
        {n["name"]: n["compiled_code"] for n in tests},
        {n["name"]: names[n["attached_node"]] for n in tests if n["attached_node"] in names},
        {
            n["name"]: literal(since)
            for n in nodes
            if n["config"].get("incremental_strategy") == "insert_overwrite"
        },
        [*_asking(manifest)],
    )


def _asking(manifest: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the questions of `first_change` and `changes_to_test` (macros of the project)."""
    nodes = {key: n for key, n in manifest["nodes"].items() if n["resource_type"] == "model"}
    tested = {n["attached_node"] for n in manifest["nodes"].values() if "attached_node" in n}

    def reads_sources(node: Mapping[str, Any]) -> bool:
        parents = node["depends_on"]["nodes"]
        views = (n for n in map(nodes.get, parents) if n and _is_view(n))
        return any(key.startswith("source.") for key in parents) or any(map(reads_sources, views))

    for key, node in nodes.items():
        hooks = node["config"]["post-hook"]
        is_recorded = not _is_view(node) and any("record_refresh" in h["sql"] for h in hooks)
        if is_recorded:
            yield node["name"], "refreshes"
            if reads_sources(node):
                yield node["name"], "raw_days"
        if key in tested and is_recorded:
            yield node["name"], "refreshes"
        elif key in tested and node["config"]["meta"].get("tested_by"):
            yield node["name"], "raw_days" if reads_sources(node) else "refreshes"


def _is_view(node: Mapping[str, Any]) -> bool:
    return bool(node["config"]["materialized"] == "view")


def costs(refresh: Refresh, tables: Mapping[str, Table]) -> Iterator[Cost]:
    """Yield what each statement of a refresh reads of each table whose size is known.

    A table that a statement names more than once counts once: with all the columns and from the
    earliest day that any of its places asks for. Statements that `sqlglot` cannot read, of models
    of BigQuery ML among those made anew, are left out.
    """
    views = {name: sqlglot.parse_one(sql, read="bigquery") for name, sql in refresh.views.items()}
    for model, sql in refresh.models.items():
        kind = "made anew" if model in refresh.rebuilt else "refreshed"
        yield from _costs(refresh, tables, views, model, kind, sql, refresh.reasons.get(model, {}))
    for model, bound in refresh.written.items():
        if model in tables:
            yield _written(model, tables[model], _day(bound))
    for test, sql in refresh.tests.items():
        if name := refresh.tested.get(test):
            reasons = {**refresh.reasons.get(name, {}), **refresh.reasons.get(test, {})}
            yield from _costs(refresh, tables, views, name, "tested", sql, reasons)
    for model, name in refresh.asking:
        yield Cost(model, name, "asked", *(0, 0, 0, 0), is_bounded=True, is_rebuilt=False)


def _costs(
    refresh: Refresh,
    tables: Mapping[str, Table],
    views: Mapping[str, Any],
    model: str,
    kind: str,
    sql: str,
    reasons: Mapping[str, str],
) -> Iterator[Cost]:
    found: dict[str, tuple[set[str], list[date | None]]] = {}
    try:
        for scan in parsed_scans(sql, views):
            if scan.table in tables:
                columns, days = found.setdefault(scan.table, (set(), []))
                columns |= tables[scan.table].widths.keys() & (
                    tables[scan.table].widths.keys() if scan.columns is None else scan.columns
                )
                bound = scan.bounds.get(refresh.partition_columns.get(scan.table, ""))
                days.append(_day(bound) if bound else None)
    except sqlglot.ParseError:
        if model not in refresh.rebuilt:
            raise
    for name, (columns, days) in sorted(found.items()):
        table = tables[name]
        bounds = [day for day in days if day]
        first = min(bounds) if len(bounds) == len(days) else None
        yield Cost(
            model,
            name,
            kind,
            table.size(columns, first),
            table.size(columns),
            sum(1 for day in table.rows if not (first and day and day < first)),
            len(table.rows),
            first is not None or name not in refresh.partition_columns,
            model in refresh.rebuilt or (kind == "tested" and name in refresh.rebuilt),
            reasons.get(name, ""),
        )


def _written(model: str, table: Table, first: date) -> Cost:
    """Return what the MERGE that replaces a model's rows reads: the new rows, and the old ones."""
    columns = list(table.widths)
    return Cost(
        *(model, model, "written", 2 * table.size(columns, first), 2 * table.size(columns)),
        sum(1 for day in table.rows if not (day and day < first)),
        *(len(table.rows), True, False),
    )


@cache
def _day(bound: str) -> date:
    """Return the UTC day of a constant of GoogleSQL."""
    text = sqlglot.transpile(bound, read="bigquery", write="duckdb")[0]
    with duckdb.connect(":memory:") as connection:
        query = f"select cast(cast({text} as timestamp) as date)"
        ((day,),) = connection.execute(query).fetchall()
    return cast(date, day)
