"""What the scoring loop needs before it starts: models, queries, and the rows of the past."""

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from ingest import warehouse
from ingest.settings import Settings, snapshot_path
from serving.decisions import ENSEMBLES, Decisions
from serving.manifest import Lineage, compiled, dataset, lineage, together
from serving.models import Asked, asked_models
from serving.outbox import landed_signals
from serving.plan import CHANGED, Plan, plan
from serving.scoring import BUILD_FIRST, NotReadyError, require_tables

REGIMES = "int_volatility_regimes"
BAR = (
    "exchange", "market", "symbol", "interval_minutes", "opened_at", "closed_at", "available_at",
)  # fmt: skip
#: How far back a loop that was down catches up; older bars are the scheduled job's.
CATCH_UP = timedelta(days=1)
#: Seconds that a warehouse which is held is waited for where there is a readers' copy of it.
PATIENCE_S = 2.0


@dataclass(frozen=True)
class Prepared:
    """What the loop runs with.

    Parameters
    ----------
    asked : tuple of Asked
        The model versions.
    lineage : Lineage
        Their datasets and what those are made of.
    plan : Plan
        What of it is computed.
    intervals : tuple of int
        Lengths of the datasets' bars, in minutes.
    decisions : Decisions
        Thresholds and ensembles.
    signals : pyarrow.Table
        Keys of the signals that have landed.
    state : str
        What `state` said of the warehouse that all this was read from.
    """

    asked: tuple[Asked, ...]
    lineage: Lineage
    plan: Plan
    intervals: tuple[int, ...]
    decisions: Decisions
    signals: pa.Table
    state: str


@contextmanager
def reading(database: Path, *, timeout_s: float) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open the warehouse or, if it is not released soon, the readers' copy of it.

    Raises
    ------
    ingest.warehouse.WarehouseBusyError
        If there is no copy, and the warehouse is still held after ``timeout_s``.
    """
    copy = snapshot_path(database)
    with ExitStack() as stack:
        try:
            patience_s = min(timeout_s, PATIENCE_S) if copy.exists() else timeout_s
            opened = stack.enter_context(warehouse.reading(database, timeout_s=patience_s))
        except warehouse.WarehouseBusyError:
            if not copy.exists():
                raise
            opened = stack.enter_context(warehouse.reading(copy, timeout_s=timeout_s))
        yield opened


def prepare(settings: Settings, *, now: datetime, timeout_s: float) -> Prepared:
    """Read the registry, compile the features of its models, and plan what to compute.

    Raises
    ------
    NotReadyError
        If no model has been trained yet, or one cannot be asked live; the message says what to do.
    serving.plan.UnboundedError
        If a feature of a model depends on all of the past.
    """
    database = settings.database
    with reading(database, timeout_s=timeout_s) as connection:
        read = _state(connection)
        found = asked_models(connection, database)
        signals = landed_signals(connection, now - CATCH_UP)
    if not found:
        raise NotReadyError(f"{database} has no active model: {BUILD_FIRST}")
    full, refresh = _manifests(database, sorted({model.name for model, _, _ in found}))
    asked = tuple(
        Asked(model, stage, _given(full, model.name), file) for model, stage, file in found
    )
    wanted: dict[str, tuple[str, ...]] = {}
    for each in asked:
        if each.is_stacked:
            continue
        known = wanted.get(each.dataset, BAR)
        wanted[each.dataset] = tuple(dict.fromkeys((*known, *each.model.features)))
    wanted[REGIMES] = (
        "exchange",
        "market",
        "symbol",
        "interval_minutes",
        "opened_at",
        "vol_regime",
    )
    full_chain, refresh_chain = (
        together(lineage(manifest, name) for name in sorted(wanted)) for manifest in (full, refresh)
    )
    datasets = sorted(wanted.keys() - {REGIMES})
    with reading(database, timeout_s=timeout_s) as connection:
        require_tables(connection, database, *datasets)
        intervals = _intervals(connection, datasets)
    try:
        planned = plan(full_chain, refresh_chain, wanted, intervals=intervals)
    except ValueError as error:
        raise NotReadyError(f"{error}, which a model was trained on: train it anew") from error
    with reading(database, timeout_s=timeout_s) as connection:
        votes = sorted({each.dataset for each in asked if each.is_stacked})
        decisions = Decisions(full, _signal_models(connection, full, asked), votes, connection)
        if _state(connection) != read:
            # Built or promoted meanwhile, or read from the readers' copy: it is looked at again.
            read = ""
    return Prepared(asked, full_chain, planned, tuple(sorted(intervals)), decisions, signals, read)


def _intervals(connection: duckdb.DuckDBPyConnection, datasets: list[str]) -> set[int]:
    """Return the lengths of the bars of datasets, in minutes."""
    intervals: set[int] = set()
    for name in datasets:
        found = connection.sql(f"select distinct interval_minutes from {name}").fetchall()
        if not found:
            raise NotReadyError(f"{name} is empty: ingest what it is made of, and {BUILD_FIRST}")
        intervals.update(minutes for (minutes,) in found)
    return intervals


def state(settings: Settings) -> str:
    """Return a hash of what a promotion or a build changes: stages, thresholds and rules.

    Raises
    ------
    ingest.warehouse.WarehouseBusyError
        If another process holds the warehouse; it is not waited for.
    """
    with warehouse.reading(settings.database, timeout_s=0) as connection:
        return _state(connection)


def _state(connection: duckdb.DuckDBPyConnection) -> str:
    told = {
        "registry.stages": "model_name, model_version, stage, changed_at",
        "main.sig_thresholds": "model_name, model_version, threshold",
        "main.ensembles": "*",
    }
    built = connection.execute("select schema_name || '.' || table_name from duckdb_tables()")
    digest = hashlib.sha256()
    for (name,) in sorted(built.fetchall()):
        if columns := told.get(name):
            rows = connection.execute(f"select {columns} from {name} order by all").fetchall()
            digest.update(f"{name} {rows}".encode())
    return str(digest.hexdigest())


def raw_rows(
    settings: Settings, plan_: Plan, *, since: datetime, timeout_s: float
) -> dict[str, pa.Table]:
    """Copy out of the warehouse the raw rows that decide bars since a moment, naive UTC."""
    with reading(settings.database, timeout_s=timeout_s) as connection:
        return {
            source.relation: connection.sql(
                f"select * from {source.schema}.{source.name} where {source.event_time} >= $since"
                # Candles that are still open make no bar: of each minute there may be hundreds.
                + (" and is_closed" if source.name == "klines" else ""),
                params={"since": (since - timedelta(minutes=minutes)).replace(tzinfo=UTC)},
            ).to_arrow_table()
            for source, (_, minutes) in plan_.sources.items()
        }


def _manifests(database: Path, models: list[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    selection = (
        "--select",
        *(f"+{model}" for model in models),
        *(f"+{REGIMES}", ENSEMBLES, *(f"sig_{model.removeprefix('ml_')}" for model in models)),
        *(f"1+pred_{model.removeprefix('ml_')}" for model in models),
        *("--exclude", *models),
    )
    with ThreadPoolExecutor(2) as pool:
        full = pool.submit(compiled, database, selection)
        refresh = pool.submit(compiled, database, selection, changed_from=CHANGED)
        return full.result(), refresh.result()


def _given(manifest: dict[str, Any], model: str) -> str:
    """Return the relation whose rows a model is given.

    That is its dataset or, of one that learned from the answers of others, the one table of
    answers that its predictions are made of.

    Raises
    ------
    NotReadyError
        If there is neither: the model cannot be asked live.
    """
    if not any(node["name"] == model for node in manifest["nodes"].values()):
        raise NotReadyError(
            f"{model} is registered and the project has no such model: bring its file back, or "
            f"retire it with `tapehouse models promote {model} VERSION --stage retired`"
        )
    try:
        name = dataset(manifest, model)
    except ValueError:
        name = ""
    if name.startswith("ds_"):
        return name
    nodes = manifest["nodes"]
    predictions = f"pred_{model.removeprefix('ml_')}"
    found: set[str] = {
        nodes[key]["name"]
        for node in nodes.values()
        if node["name"] == predictions
        for key in node["depends_on"]["nodes"]
        if nodes[key]["name"].startswith("pred_")
    }
    if len(found) != 1:
        raise NotReadyError(
            f"{model} cannot be asked live: it selects from no dataset alone, and {predictions} "
            f"from {len(found)} tables of answers instead of one (see pred_order_flow_votes); "
            "make its role baseline, or retire it"
        )
    return found.pop()


def _signal_models(
    connection: duckdb.DuckDBPyConnection, manifest: dict[str, Any], asked: tuple[Asked, ...]
) -> list[str]:
    """Return the signal models of the versions whose thresholds and rules have been built."""
    wanted = {ENSEMBLES, *(f"sig_{each.model.name.removeprefix('ml_')}" for each in asked)}
    nodes = manifest["nodes"]
    built = {
        name
        for (name,) in connection.execute(
            "select table_name from information_schema.tables where table_schema = 'main'"
        ).fetchall()
    }
    return sorted(
        node["name"]
        for node in nodes.values()
        if node["name"] in wanted
        and {nodes[key]["name"] for key in node["depends_on"]["nodes"]} <= built
    )
