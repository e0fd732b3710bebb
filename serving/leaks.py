"""Proof that no feature or label depends on rows that had not arrived."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import duckdb

from ingest import warehouse
from serving.manifest import PROJECT, Model, Source, compiled, lineage

SERIES = "exchange, market, symbol, interval_minutes"
KEY = f"{SERIES}, opened_at"
LAYERS = ("features", "labels")
WHOLE_ROW = "(row)"


class UnknownModelError(ValueError):
    """The project has no feature or label table of that name."""


class NothingToCheckError(RuntimeError):
    """The warehouse holds no bars."""


@dataclass(frozen=True)
class Leak:
    """A column of a series whose past values later rows change.

    Parameters
    ----------
    model, column : str
        ``(row)`` where a row is there only with, or only without, the later rows.
    exchange, market, symbol : str
        The series.
    interval_minutes : int
        Length of its bars.
    rows : int
        Differing rows at the cut-off with the most of them.
    first_opened_at, last_opened_at : datetime
        Opening of the first and the last bar that differs at any cut-off, naive UTC.
    cut_off : datetime
        The first cut-off at which the first of these bars differs, naive UTC.
    whole, known : str or None
        Its value built from all rows, and from those that had arrived by the cut-off.
    """

    model: str
    column: str
    exchange: str
    market: str
    symbol: str
    interval_minutes: int
    rows: int
    first_opened_at: datetime
    last_opened_at: datetime
    cut_off: datetime
    whole: str | None
    known: str | None


@dataclass(frozen=True)
class Proof:
    """What a check compared and found.

    Parameters
    ----------
    rows : mapping of str to int
        By model, the rows compared at all cut-offs together.
    cut_offs : tuple of datetime
        Naive UTC, ascending.
    leaks : tuple of Leak
        By model, column and series.
    """

    rows: Mapping[str, int]
    cut_offs: tuple[datetime, ...]
    leaks: tuple[Leak, ...]


def checkable(manifest: Mapping[str, Any]) -> list[str]:
    """Return the names of all feature and label tables of a project, sorted."""
    return sorted(
        node["name"]
        for node in manifest["nodes"].values()
        if node["resource_type"] == "model" and node["fqn"][1] in LAYERS
    )


def check(
    database: Path,
    models: Iterable[str] = (),
    cut_offs: Iterable[datetime] = (),
    *,
    project: Path = PROJECT,
    timeout_s: float = 600.0,
    say: Callable[[str], None] = lambda _: None,
) -> Proof:
    """Rebuild tables from the raw rows that had arrived by each cut-off, and compare.

    Every table is built from all rows and again for each cut-off, on disk beside the warehouse,
    which is held only while its raw rows are copied. A row that was available by the cut-off must
    be there and be equal in every column. A label must be equal once its end, and the bars up to
    it, were known, and NULL while its end lies ahead; it ends at the ``_end_at`` column of its
    table that ends in the same number.

    Parameters
    ----------
    database : Path
        The warehouse file.
    models : iterable of str
        Names of feature and label tables; all of the project if there are none.
    cut_offs : iterable of datetime
        Naive UTC; if there are none, they are chosen where leaks show: see `default_cut_offs`.
    project : Path
        The dbt project.
    timeout_s : float
        Seconds to wait for another process to release the warehouse.
    say : callable
        Told what is being done.

    Raises
    ------
    UnknownModelError
        If the project has no feature or label table of a given name.
    NothingToCheckError
        If the warehouse holds no bars.
    WarehouseMissingError, WarehouseBusyError
        If there is no warehouse file, or it was not released in time.
    CompilationError
        If dbt refuses the project.
    """
    say("compiling")
    layers = [f"+path:models/{layer}" for layer in LAYERS]
    manifest = compiled(database, ["--select", *layers], project=project)
    known = checkable(manifest)
    names = sorted(set(models)) or known
    if unknown := sorted(set(names) - set(known)):
        raise UnknownModelError(
            f"the project has no feature or label table {', '.join(unknown)}; "
            f"it has {', '.join(known)}"
        )
    chains = [lineage(manifest, name) for name in names]
    parts = list(dict.fromkeys(model for chain in chains for model in chain.models))
    sources = list(dict.fromkeys(source for chain in chains for source in chain.sources))
    with TemporaryDirectory(prefix="leaks-", dir=database.parent) as directory:
        scratch = Path(directory)
        say("copying raw rows")
        with warehouse.reading(database, timeout_s=timeout_s) as connection:
            for source in sources:
                file = _landed(scratch, source)
                connection.execute(f"copy (from {source.relation}) to '{file}' (format parquet)")
        with duckdb.connect(":memory:") as connection:
            connection.execute("set TimeZone = 'UTC'")
            connection.execute(f"set temp_directory = '{scratch / 'spill'}'")
            connection.execute("set preserve_insertion_order = false")
            connection.execute(f"attach '{scratch / 'built.duckdb'}' as \"{chains[0].database}\"")
            connection.execute(f'use "{chains[0].database}"')
            return _compared(connection, scratch, sources, parts, names, tuple(cut_offs), say)


def default_cut_offs(
    connection: duckdb.DuckDBPyConnection, parts: Sequence[Model]
) -> list[datetime]:
    """Return moments, spread over the history, at which leaks show.

    They are: the middle of a one-minute bar, just before the close of an hour, a day boundary,
    the middle of an hour, a close, the middle of the longest hole in the klines and, of each
    staging table with rows that arrived late, just before its latest one arrived.

    Parameters
    ----------
    connection : duckdb.DuckDBPyConnection
        Where the models were built from all rows.
    parts : sequence of Model
        The models.
    """
    klines = next(part.relation for part in parts if part.name == "stg_klines")
    found = connection.execute(
        f"""
        with bars as (
            select
                opened_at, closed_at,
                lead(opened_at) over (
                    partition by exchange, market, symbol, interval_minutes order by opened_at
                ) as next_opened_at
            from {klines} where is_closed
        ),
        chosen as (
            select
                quantile_disc(closed_at, [0.15, 0.3, 0.5, 0.7, 0.85]) as marks,
                arg_max(closed_at + (next_opened_at - closed_at) / 2, next_opened_at - closed_at)
                    filter (where next_opened_at > closed_at) as hole_at
            from bars
        )
        select unnest([
            marks[1] + interval 30 seconds,
            date_trunc('hour', marks[2]) - interval 1 microsecond,
            date_trunc('day', marks[3]),
            date_trunc('hour', marks[4]) + interval 30 minutes,
            marks[5],
            hole_at
        ])
        from chosen
        """
    ).fetchall()
    for part in parts:
        if part.name.startswith("stg_"):
            events = [
                name
                for name, kind in _columns(connection, part.relation).items()
                if kind == "TIMESTAMP" and name not in {"available_at", "received_at"}
            ]
            delays = [
                f"case when {at} <= available_at then available_at - {at} end" for at in events
            ]
            found += connection.execute(
                f"select arg_max(available_at, delay) - interval 1 microsecond "
                f"from (select available_at, least({', '.join(delays)}) as delay "
                f"from {part.relation}) where delay > interval 0 seconds"
            ).fetchall()
    return sorted({at for (at,) in found if at is not None})


def _landed(scratch: Path, source: Source) -> Path:
    return scratch / f"{source.relation.replace(chr(34), '')}.parquet"


def _compared(
    connection: duckdb.DuckDBPyConnection,
    scratch: Path,
    sources: Sequence[Source],
    parts: Sequence[Model],
    names: Sequence[str],
    cut_offs: tuple[datetime, ...],
    say: Callable[[str], None],
) -> Proof:
    say("building from all rows")
    _build(connection, scratch, sources, parts, None)
    if not cut_offs:
        cut_offs = tuple(default_cut_offs(connection, parts))
    if not cut_offs:
        raise NothingToCheckError("the warehouse holds no bars: run `tapehouse ingest` first")
    tables = {part.name: part.relation for part in parts if part.name in names}
    connection.execute("create schema whole")
    for name, relation in tables.items():
        connection.execute(f"create table whole.{name} as from {relation}")
    connection.execute(
        "create table differences (model varchar, column_name varchar, exchange varchar, "
        "market varchar, symbol varchar, interval_minutes bigint, cut_off timestamp, rows bigint, "
        "first_opened_at timestamp, last_opened_at timestamp, whole varchar, known varchar)"
    )
    rows = dict.fromkeys(names, 0)
    for number, cut_off in enumerate(sorted(cut_offs), 1):
        say(f"cut-off {number} of {len(cut_offs)}, {cut_off}")
        _build(connection, scratch, sources, parts, cut_off)
        for name, relation in tables.items():
            rows[name] += _compare(connection, name, relation, cut_off)
    leaks = connection.execute(
        f"""
        select
            model, column_name, {SERIES}, max(rows), min(first_opened_at), max(last_opened_at),
            arg_min(cut_off, (first_opened_at, cut_off)),
            arg_min_null(whole, (first_opened_at, cut_off)),
            arg_min_null(known, (first_opened_at, cut_off))
        from differences
        group by model, column_name, {SERIES}
        order by model, column_name, {SERIES}
        """
    ).fetchall()
    return Proof(rows, tuple(sorted(cut_offs)), tuple(Leak(*leak) for leak in leaks))


def _build(
    connection: duckdb.DuckDBPyConnection,
    scratch: Path,
    sources: Sequence[Source],
    parts: Sequence[Model],
    cut_off: datetime | None,
) -> None:
    """Build the models from the raw rows that had arrived, all of them without a cut-off.

    What staging calls available decides; of a live row that came twice, staging's row may be the
    later one, so the raw rows that were not yet received must be out of its sight.
    """
    arrived, available = "true", "true"
    if cut_off is not None:
        arrived = (
            f"(source like 'websocket%' and received_at > timestamptz '{cut_off}+00') is not true"
        )
        available = f"available_at <= timestamp '{cut_off}'"
    for schema in {part.relation.rpartition(".")[0] for part in (*sources, *parts)}:
        connection.execute(f"create schema if not exists {schema}")
    for source in sources:
        rows = f"from '{_landed(scratch, source)}' where {arrived}"
        connection.execute(f"create or replace view {source.relation} as {rows}")
    for part in parts:
        kind = "view" if part.is_view else "table"
        sql = part.sql
        if part.name.startswith("stg_"):
            sql = f"select * from ({part.sql}) where {available}"
        connection.execute(f"create or replace {kind} {part.relation} as {sql}")


def _compare(
    connection: duckdb.DuckDBPyConnection, name: str, relation: str, cut_off: datetime
) -> int:
    """Add a table's differences at a cut-off to `differences`, and return the rows compared."""
    whole = f"whole.{name}"
    columns = [column for column in _columns(connection, whole) if column not in KEY.split(", ")]
    ends = [column for column in columns if column.endswith("_end_at") and name.startswith("lbl_")]
    differs = {column: _differs(column, ends) for column in columns}
    values = ", ".join(
        f'whole."{column}" as "whole_{column}", known."{column}" as "known_{column}"'
        for column in columns
    )
    at = {"cut_off": cut_off}
    connection.execute(
        f"""
        create or replace temp table differing as
        with whole as (
            select
                *,
                min(case when available_at > $cut_off then opened_at + to_minutes(interval_minutes) end)
                    over (partition by {SERIES}) as first_unknown_at
            from {whole}
        ),
        joined as (
            select
                whole.exchange, whole.market, whole.symbol, whole.interval_minutes, whole.opened_at,
                known.opened_at is null as is_missing, $cut_off as cut_off, first_unknown_at, {values}
            from whole left join {relation} as known using ({KEY})
            where whole.available_at <= $cut_off
        )
        select * from joined where is_missing or {" or ".join(differs.values())}
        union all by name
        select {KEY}, true as is_missing from {relation} anti join {whole} using ({KEY})
        where available_at <= $cut_off
        """,
        at,
    )
    ((count, differing),) = connection.execute(
        f"select count(*), (select count(*) from differing) from {whole} where available_at <= $cut_off",
        at,
    ).fetchall()
    if differing:
        present = {column: f"not is_missing and {rule}" for column, rule in differs.items()}
        for column, rule in {WHOLE_ROW: "is_missing", **present}.items():
            shown = (
                ("null", "null")
                if column == WHOLE_ROW
                else (f'cast("whole_{column}" as varchar)', f'cast("known_{column}" as varchar)')
            )
            connection.execute(
                f"insert into differences select $model, $column, {SERIES}, $cut_off, count(*), "
                f"min(opened_at), max(opened_at), arg_min_null({shown[0]}, opened_at), "
                f"arg_min_null({shown[1]}, opened_at) from differing where {rule} group by {SERIES}",
                at | {"model": name, "column": column},
            )
    return int(count)


def _differs(column: str, ends: Sequence[str]) -> str:
    """Return the condition under which a column's two values show a leak."""
    whole, known = f'"whole_{column}"', f'"known_{column}"'
    own = [f'"whole_{end}"' for end in ends if _horizon(end) == _horizon(column)]
    if not own:
        return f"{known} is distinct from {whole}"
    end = f"least({', '.join(own)})"
    return (
        f"case when coalesce({end} > cut_off, true) then {known} is not null "
        f"when coalesce({end} < first_unknown_at, true) then {known} is distinct from {whole} "
        f"else {known} is not null and {known} is distinct from {whole} end"
    )


def _horizon(column: str) -> str | None:
    numbers = re.findall(r"(?<=_)\d+(?=_|$)", column)
    return numbers[-1] if numbers else None


def _columns(connection: duckdb.DuckDBPyConnection, relation: str) -> dict[str, str]:
    described = connection.sql(f"from {relation} limit 0")
    return dict(zip(described.columns, map(str, described.types), strict=True))
