"""Proof that no feature, label or dataset depends on rows that had not arrived."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import duckdb

from ingest import warehouse
from serving.comparison import SERIES, compare, create_differences
from serving.cut_offs import default_cut_offs
from serving.manifest import PROJECT, Lineage, Source, compiled, lineage, together

LAYERS = ("features", "labels", "datasets")


class UnknownModelError(ValueError):
    """The project has no feature, label or dataset table of that name."""


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
    """Return the names of all feature, label and dataset tables of a project, sorted."""
    return sorted(
        node["name"]
        for node in manifest["nodes"].values()
        if node["resource_type"] == "model" and node["fqn"][1] in LAYERS
    )


def compiled_tables(database: Path, *, project: Path = PROJECT) -> dict[str, Any]:
    """Return the manifest of a project with all feature, label and dataset tables compiled.

    Raises
    ------
    CompilationError
        If dbt refuses the project.
    """
    layers = [f"+path:models/{layer}" for layer in LAYERS]
    return compiled(database, ["--select", *layers], project=project)


def check(
    database: Path,
    models: Iterable[str] = (),
    cut_offs: Iterable[datetime] = (),
    *,
    manifest: Mapping[str, Any] | None = None,
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
        Names of feature, label and dataset tables; all of the project if there are none.
    cut_offs : iterable of datetime
        Naive UTC; if there are none, they are chosen where leaks show: see `serving.cut_offs`.
    manifest : mapping, optional
        What `compiled_tables` returns; this project's if there is none.
    timeout_s : float
        Seconds to wait for another process to release the warehouse.
    say : callable
        Told what is being done.

    Raises
    ------
    UnknownModelError
        If the project has no feature, label or dataset table of a given name.
    NothingToCheckError
        If the warehouse holds no bars.
    WarehouseMissingError, WarehouseBusyError
        If there is no warehouse file, or it was not released in time.
    CompilationError
        If dbt refuses the project.
    """
    if manifest is None:
        with warehouse.reading(database, timeout_s=timeout_s):
            say("compiling")
        manifest = compiled_tables(database)
    known = checkable(manifest)
    names = sorted(set(models)) or known
    if unknown := sorted(set(names) - set(known)):
        raise UnknownModelError(
            f"the project has no feature, label or dataset table {', '.join(unknown)}; "
            f"it has {', '.join(known)}"
        )
    chain = together([lineage(manifest, name) for name in names])
    with TemporaryDirectory(prefix="leaks-", dir=database.parent) as directory:
        scratch = Path(directory)
        say("copying raw rows")
        with warehouse.reading(database, timeout_s=timeout_s) as connection:
            for source in chain.sources:
                file = _file(scratch, source)
                connection.execute(f"copy (from {source.relation}) to '{file}' (format parquet)")
        with duckdb.connect(":memory:") as connection:
            connection.execute("set TimeZone = 'UTC'")
            connection.execute(f"set temp_directory = '{scratch / 'spill'}'")
            connection.execute("set preserve_insertion_order = false")
            connection.execute(f"attach '{scratch / 'built.duckdb'}' as \"{chain.database}\"")
            connection.execute(f'use "{chain.database}"')
            _land(connection, scratch, chain)
            say("building from all rows")
            _build(connection, chain)
            moments = sorted(cut_offs) or default_cut_offs(connection, chain.models)
            if not moments:
                raise NothingToCheckError(f"{database} holds no klines: run `tapehouse ingest`")
            tables = {part.name: part.relation for part in chain.models if part.name in names}
            create_differences(connection, tables)
            compared = dict.fromkeys(names, 0)
            for number, cut_off in enumerate(moments, 1):
                say(f"cut-off {number} of {len(moments)}, {cut_off}")
                _build(connection, chain, cut_off=cut_off)
                for name, relation in tables.items():
                    compared[name] += compare(connection, name, relation, cut_off)
            return Proof(compared, tuple(moments), _leaks(connection))


def _file(scratch: Path, source: Source) -> Path:
    return scratch / f"{source.name}.parquet"


def _land(connection: duckdb.DuckDBPyConnection, scratch: Path, chain: Lineage) -> None:
    """Make tables of the copied rows: over files the optimizer knows less, and plans worse."""
    connection.execute("create schema landed")
    for source in chain.sources:
        file = _file(scratch, source)
        connection.execute(f"create table landed.{source.name} as from '{file}'")
        file.unlink()


def _build(
    connection: duckdb.DuckDBPyConnection, chain: Lineage, *, cut_off: datetime | None = None
) -> None:
    """Build the models from the raw rows that had arrived, from all of them without a cut-off.

    What had arrived is what staging calls available. Of a live row that came twice staging keeps
    the later one, which must not hide the earlier: live rows are cut by when they were received.
    """
    arrived, available = "true", "true"
    if cut_off is not None:
        received = f"received_at <= timestamptz '{cut_off}+00'"
        arrived = f"(source like 'websocket%') is not true or {received}"
        available = f"available_at <= timestamp '{cut_off}'"
    for schema in chain.schemas:
        connection.execute(f'create schema if not exists "{schema}"')
    for source in chain.sources:
        rows = f"from landed.{source.name} where {arrived}"
        connection.execute(f"create or replace view {source.relation} as {rows}")
    for part in chain.models:
        is_staging = part.name.startswith("stg_")
        sql = f"select * from ({part.sql}) where {available}" if is_staging else part.sql
        kind = "view" if part.is_view else "table"
        connection.execute(f"create or replace {kind} {part.relation} as {sql}")


def _leaks(connection: duckdb.DuckDBPyConnection) -> tuple[Leak, ...]:
    found = connection.execute(
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
    return tuple(Leak(*leak) for leak in found)
