"""What serving computes of the project's models: which of them, which columns, how far back."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import duckdb

from ingest.warehouse import RAW_SCHEMA
from serving.manifest import Lineage, Model, Source

#: A table of one row: the moment from which on rows have changed.
CHANGES = '"serving_changes"'
#: What the models compiled for a refresh call that moment.
CHANGED = f"(select changed_at from {CHANGES})"
#: Columns that say whose and when a row is: of a left join they decide nothing.
_NAMES = {"exchange", "market", "symbol", "series", "interval_minutes", "is_aggregate"}
#: What names a bar.
_KEY = {"exchange", "market", "symbol", "interval_minutes", "opened_at"}


class UnboundedError(RuntimeError):
    """A feature depends on all of the past, which serving does not keep."""


@dataclass(frozen=True)
class Step:
    """A model as serving keeps it.

    Parameters
    ----------
    model, refresh : Model
        Compiled from all rows, and as a refresh since the moment ``$changed``.
    columns : tuple of str
        Those that the models after it, or those who ask, read.
    minutes : int
        How far back its rows are kept.
    reach : int
        How many minutes before what changed a refresh reads raw rows.
    reads_itself : bool
        Whether a refresh goes on from the rows that stay.
    is_empty : bool
        Whether it stays empty: nothing but the keys of its rows is read, or it is a label.
    is_early : bool
        Whether it comes from the tape alone, so that it can be computed before the bar closes.
    has_intervals : bool
        Whether its rows are bars of several lengths.
    is_slow : bool
        Whether its last row counts for longer than its readers look back: it comes from a slower
        series, or is of a day.
    keys_only : frozenset of str
        Relations of which it reads no more than that they have a row for each bar.
    """

    model: Model
    refresh: Model
    columns: tuple[str, ...]
    minutes: int
    reach: int
    reads_itself: bool
    is_empty: bool
    is_early: bool
    has_intervals: bool
    is_slow: bool
    keys_only: frozenset[str]


@dataclass(frozen=True)
class Plan:
    """What is kept in memory.

    Parameters
    ----------
    database : str
        The catalogue that the compiled SQL names.
    schemas : tuple of str
        The schemas of all tables.
    sources : dict of Source to (int, int)
        The raw tables that are read: how many minutes of them a refresh reads before what
        changed, and how many decide a bar if everything is computed from them.
    intervals : tuple of int
        Lengths of the bars that are kept, in minutes.
    steps : tuple of Step
        Ancestors before descendants.
    """

    database: str
    schemas: tuple[str, ...]
    sources: dict[Source, tuple[int, int]]
    intervals: tuple[int, ...]
    steps: tuple[Step, ...]

    def step(self, name: str) -> Step:
        """Return the step of a model."""
        return next(step for step in self.steps if step.model.name == name)


def plan(
    full: Lineage,
    refresh: Lineage,
    wanted: Mapping[str, tuple[str, ...]],
    *,
    intervals: Iterable[int],
) -> Plan:
    """Find what the wanted columns need, by asking DuckDB's optimizer what each query reads.

    Parameters
    ----------
    full, refresh : Lineage
        The same models, compiled from all rows and as a refresh since `CHANGED`.
    wanted : mapping of str to tuple of str
        By the name of a model, its columns that are asked for.
    intervals : iterable of int
        Lengths of the bars that are asked for, in minutes.

    Raises
    ------
    ValueError
        If a model has no such column.
    UnboundedError
        If a column depends on all of the past.
    """
    with empty(full) as connection:
        shapes = {model.relation: _columns(connection, model.relation) for model in full.models}
        for model in full.models:
            if missing := set(wanted.get(model.name, ())) - set(shapes[model.relation]):
                raise ValueError(f"{model.name} has no column {', '.join(sorted(missing))}")
        reads = _Reads(full, refresh, shapes, max(intervals))
        reads.follow(connection, wanted)
    views = {model.relation for model in full.models if model.is_view}
    tape = {source.relation for source in full.sources} | views
    steps = []
    for model in full.models:
        if not reads.columns[model.relation] and not model.is_view:
            continue
        is_early = set(model.parents) <= tape and not any(
            "interval_minutes" in shapes.get(parent, ()) for parent in model.parents
        )
        if is_early or model.relation in reads.empty:
            tape.add(model.relation)
        steps.append(
            Step(
                model=model,
                refresh=reads.refreshes[model.relation],
                columns=tuple(
                    name
                    for name in shapes[model.relation]
                    if model.is_view or name in reads.columns[model.relation] | {model.event_time}
                ),
                minutes=reads.minutes.get(model.relation, 0),
                reach=reads.reaches.get(model.relation, 0),
                reads_itself=model.relation in reads.themselves,
                is_empty=model.relation in reads.empty,
                is_early=is_early,
                has_intervals="interval_minutes" in shapes[model.relation],
                is_slow=reads.staleness(model.relation) > 0 or model.grain_minutes > 1,
                keys_only=frozenset(reads.keys_only.get(model.relation, ())),
            )
        )
    sources = {
        source: (
            reads.minutes[source.relation] + source.lookback_minutes,
            reads.window[source.relation] + source.lookback_minutes,
        )
        for source in full.sources
        if source.relation in reads.minutes
    }
    mentioned = {
        int(minutes)
        for step in steps
        if not step.is_empty and not set(step.model.parents) <= views
        for minutes in re.findall(r"\binterval_minutes = (\d+)", step.refresh.sql)
    }
    return Plan(
        database=full.database,
        schemas=tuple(full.schemas),
        sources=sources,
        intervals=tuple(sorted({*intervals, *mentioned})),
        steps=tuple(steps),
    )


class _Reads:
    """What is read of each relation, found from the last model to the first."""

    def __init__(
        self, full: Lineage, refresh: Lineage, shapes: Mapping[str, list[str]], longest: int
    ) -> None:
        self._lineage = full
        self._shapes = shapes
        self._longest = longest
        self._bars = next((model.relation for model in full.models if model.name == "int_bars"), "")
        self.refreshes = {model.relation: model for model in refresh.models}
        self.columns: dict[str, set[str]] = {model.relation: set() for model in full.models}
        self.minutes: dict[str, int] = {}
        self.window: dict[str, int] = {}
        self.reaches: dict[str, int] = {}
        self.themselves: set[str] = set()
        self.keys_only: dict[str, set[str]] = {}
        self.empty: set[str] = set()

    def follow(
        self, connection: duckdb.DuckDBPyConnection, wanted: Mapping[str, tuple[str, ...]]
    ) -> None:
        """Find what the wanted columns read."""
        for model in reversed(self._lineage.models):
            columns = self.columns[model.relation]
            columns |= set(wanted.get(model.name, ()))
            if not columns or model.is_view:
                continue
            if unbounded := columns & set(model.unbounded):
                raise UnboundedError(
                    f"{model.name}.{min(unbounded)} depends on all of the past and cannot be "
                    "served: leave it out of the models that are asked live"
                )
            if model.name not in wanted and self._is_empty(model):
                self.empty.add(model.relation)
                continue
            known: set[str] = set()
            while known != columns:
                known = set(columns)
                sql = self.refreshes[model.relation].sql
                found = list(_scanned(connection, sql, known))
                self.keys_only[model.relation] = self._keys_only(model, found)
                for relation, names in found:
                    if relation not in self.keys_only[model.relation]:
                        self._note(model, relation, names)
                if self.keys_only[model.relation]:
                    self._note(model, self._bars, _KEY | {"is_gap"})

    def _keys_only(self, reader: Model, found: Iterable[tuple[str, set[str]]]) -> set[str]:
        """Return the tables of bars that a model joins without showing a value of them."""
        names: dict[str, set[str]] = {}
        for relation, some in found:
            names.setdefault(relation, set()).update(some)
        return {
            relation
            for relation, some in names.items()
            if relation not in (reader.relation, self._bars)
            and self._bars
            and relation in self.refreshes
            and some <= _KEY <= set(self._shapes[relation])
        }

    def _note(self, model: Model, relation: str, names: set[str]) -> None:
        self.columns.setdefault(relation, set()).update(names)
        if relation == model.relation:
            self.themselves.add(relation)
            self.minutes[relation] = max(self.minutes.get(relation, 0), self._longest)
            return
        values = self.columns[model.relation] - _NAMES - {
            "available_at", "closed_at", model.event_time,
        }  # fmt: skip
        reach = model.lookback_of(values, self._longest) + self._lookback_of_views(model)
        read = 0 if model.lookback_rows else reach
        self.reaches[model.relation] = max(self.reaches.get(model.relation, 0), read)
        kept = model.grain_minutes + read + self.staleness(relation)
        self.minutes[relation] = max(self.minutes.get(relation, 0), kept)
        total = self.window.get(model.relation, 0) + reach + model.grain_minutes
        self.window[relation] = max(self.window.get(relation, 0), total)

    def staleness(self, relation: str) -> int:
        """Return how old the rows of a table made of slower series may be that decide a bar."""
        if relation not in self.refreshes or "interval_minutes" in self._shapes[relation]:
            return 0
        known = {source.relation: source.lookback_minutes for source in self._lineage.sources}
        parents = self.refreshes[relation].parents
        return max((known.get(parent) or self.staleness(parent) for parent in parents), default=0)

    def _is_empty(self, model: Model) -> bool:
        """Whether a model's rows cannot matter: labels lie ahead, and keys alone are no value."""
        names = _NAMES | {model.event_time}
        if "interval_minutes" not in self._shapes[model.relation]:
            names.add("available_at")
        return model.name.startswith("lbl_") or self.columns[model.relation] <= names

    def _lookback_of_views(self, model: Model) -> int:
        """Return how far back the views between a model and the tables it reads look."""
        return max(
            (
                view.lookback(self._longest) + self._lookback_of_views(view)
                for view in self._lineage.models
                if view.is_view and view.relation in model.parents
            ),
            default=0,
        )


def empty(lineage: Lineage) -> duckdb.DuckDBPyConnection:
    """Return a database in memory with the lineage's tables, none of which has a row.

    Plans made in it hold for any rows: none is derived from what the tables contain.
    """
    connection = duckdb.connect(":memory:")
    connection.execute("set TimeZone = 'UTC'")
    connection.execute("set enable_progress_bar = false")
    connection.execute("set disabled_optimizers = 'statistics_propagation'")
    connection.execute(f"attach ':memory:' as \"{lineage.database}\"")
    connection.execute(f'use "{lineage.database}"')
    for schema in lineage.schemas:
        connection.execute(f'create schema if not exists "{schema}"')
    connection.execute(RAW_SCHEMA.read_text())
    connection.execute(f"create table {CHANGES} (changed_at timestamp)")
    for model in lineage.models:
        kind, limit = ("view", "") if model.is_view else ("table", "limit 0")
        connection.execute(f"create {kind} {model.relation} as from ({model.sql}) {limit}")
    return connection


def _columns(connection: duckdb.DuckDBPyConnection, relation: str) -> list[str]:
    return list(connection.sql(f"from {relation} limit 0").columns)


def _scanned(
    connection: duckdb.DuckDBPyConnection, sql: str, columns: set[str]
) -> Iterator[tuple[str, set[str]]]:
    """Yield the tables that a query reads for some of its columns, with the columns it reads."""
    names = ", ".join(f'"{name}"' for name in sorted(columns))
    explained = connection.execute(f"explain (format json) select {names} from ({sql})")
    for node in _nodes(json.loads(explained.fetchall()[0][1])):
        info = node.get("extra_info", {})
        if "Table" not in info:
            continue
        relation = ".".join(f'"{part}"' for part in info["Table"].split("."))
        if CHANGES in relation:
            continue
        projected = info.get("Projections", [])
        found = set([projected] if isinstance(projected, str) else projected)
        filters = str(info.get("Filters", ""))
        table = _columns(connection, relation)
        found |= {name for name in table if re.search(rf"\b{name}\b", filters)}
        yield relation, found & set(table)


def _nodes(plan: Any) -> Iterator[dict[str, Any]]:
    for node in plan if isinstance(plan, list) else [plan]:
        yield node
        yield from _nodes(node.get("children", []))
