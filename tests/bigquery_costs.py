"""What a refresh on BigQuery reads, from its text: which tables, and from which time on.

BigQuery leaves out a partition where a constant bounds the partition's column. A bound holds for
a table where it stands, and it goes down into subqueries whose column it names, as long as no
window or group mixes the rows before and after it.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import duckdb
import sqlglot
from sqlglot import exp

Bounds = dict[str, str]


@dataclass(frozen=True)
class Scan:
    """A read of a table: the columns that constants bound from below, and the columns read."""

    table: str
    bounds: Bounds
    columns: frozenset[str]


def scans(sql: str, views: dict[str, str]) -> Iterator[Scan]:
    """Yield every read of a table in a query; `views` are read as the queries they are."""
    parsed = {name: sqlglot.parse_one(text, read="bigquery") for name, text in views.items()}
    yield from _query(sqlglot.parse_one(sql, read="bigquery"), {}, {}, parsed)


def _query(
    query: exp.Expression, bounds: Bounds, known: dict[str, exp.Expression], views: dict
) -> Iterator[Scan]:
    if isinstance(query, exp.Subquery):
        query = query.this
    known = dict(known)
    for part in query.ctes:
        known[part.alias] = (part.this, dict(known))
    if isinstance(query, exp.SetOperation):
        for side in (query.left, query.right):
            yield from _query(side, bounds, known, views)
        return
    yield from _select(query, bounds, known, views)


def _select(
    select: exp.Select, bounds: Bounds, known: dict[str, exp.Expression], views: dict
) -> Iterator[Scan]:
    sources = [select.args.get("from_"), *(select.args.get("joins") or [])]
    inherited = {} if _mixes(select, bounds) else bounds
    own = dict(_conditions(select))
    for source in sources:
        if source is None:
            continue
        relation = source.this
        alias = relation.alias_or_name
        wanted: Bounds = {}
        for (table, column), bound in own.items():
            if table in ("", alias):
                wanted[column] = bound
        for name, bound in inherited.items():
            column = _origin(select, name, alias)
            if column:
                wanted.setdefault(column, bound)
        yield from _source(relation, wanted, select, known, views)
    for nested in _scalar_queries(select, sources):
        yield from _query(nested, {}, known, views)


def _source(relation, wanted, select, known, views) -> Iterator[Scan]:
    if isinstance(relation, exp.Subquery):
        yield from _query(relation, wanted, known, views)
    elif isinstance(relation, exp.Table):
        name = relation.name
        if not relation.db and name in known:
            query, before = known[name]
            yield from _query(query, wanted, before, views)
        elif name in views:
            yield from _query(views[name], wanted, {}, views)
        else:
            columns = {column.name for column in select.find_all(exp.Column)}
            yield Scan(name, wanted, frozenset(columns))


def _mixes(select: exp.Select, bounds: Bounds) -> bool:
    """Whether a bound of the outside would change what windows and groups see."""
    names = set(bounds)
    group = select.args.get("group")
    if group and not any(_named(item, select) & names for item in group.expressions):
        return True
    if select.args.get("limit"):
        return True
    for window in select.find_all(exp.Window):
        if window.find_ancestor(exp.Select) is select:
            parts = window.args.get("partition_by") or _named_window(select, window)
            if not any(part.name in names for part in parts):
                return True
    return False


def _named(item: exp.Expression, select: exp.Select) -> set[str]:
    places = {str(place): out for place, out in enumerate(select.named_selects, start=1)}
    return {item.name, places.get(item.name, item.name)}


def _named_window(select: exp.Select, window: exp.Window) -> list[exp.Expression]:
    for definition in select.args.get("windows") or []:
        if definition.this.name == window.alias:
            return definition.args.get("partition_by") or []
    return []


def _conditions(select: exp.Select) -> Iterator[tuple[tuple[str, str], str]]:
    """Yield the columns that a conjunct of WHERE bounds from below by a constant."""
    where = select.args.get("where")
    if where is None:
        return
    for condition in where.this.flatten() if isinstance(where.this, exp.And) else [where.this]:
        condition = condition.unnest()
        if isinstance(condition, exp.And):
            continue
        if isinstance(condition, exp.GTE | exp.GT | exp.EQ):
            column, bound = condition.this, condition.expression
            if isinstance(column, exp.Column) and not bound.find(exp.Column, exp.Select):
                yield (column.table, column.name), bound.sql("bigquery")


def _origin(select: exp.Select, name: str, alias: str) -> str | None:
    """Return the column of a source that is the output column `name` as it stands."""
    for item in select.expressions:
        if isinstance(item, exp.Star) or (
            isinstance(item, exp.Column)
            and isinstance(item.this, exp.Star)
            and item.table in ("", alias)
        ):
            return name
        if item.alias_or_name == name:
            column = item.unalias()
            if isinstance(column, exp.Column) and column.table in ("", alias):
                return column.name
            return None
    return None


def _scalar_queries(select: exp.Select, sources: list) -> Iterator[exp.Expression]:
    """Yield the queries inside expressions: in conditions and columns, not in FROM."""
    for part in [*select.expressions, select.args.get("where"), select.args.get("qualify")]:
        if part is None:
            continue
        for nested in part.find_all(exp.Select):
            if nested.parent_select is select:
                yield nested


def days_read(scan: Scan, column: str, changed_from: str, history: int) -> int:
    """Return how many daily partitions a read touches of a table with a history of so many days.

    The days before the change that the bound of the partition's column asks for, the day of the
    change, or all where there is no bound.
    """
    if column not in scan.bounds:
        return history
    bound, changed = (
        sqlglot.transpile(text, read="bigquery", write="duckdb")[0]
        for text in (scan.bounds[column], changed_from)
    )
    days = f"date_diff('day', cast({bound} as timestamp), cast({changed} as timestamp))"
    return min(history, 1 + int(duckdb.sql(f"select {days}").fetchall()[0][0]))
