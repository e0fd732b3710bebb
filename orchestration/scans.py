"""What a query on BigQuery reads, from its text: tables, their columns, and from which time on.

BigQuery leaves out a partition where a constant bounds the partition's column, or `date()` of it. A
bound holds for a table where it stands, and it goes down into subqueries whose column it names, as
long as no window or group mixes the rows before and after it. Of a table only the columns are read
that the result is made of.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import sqlglot
from sqlglot import exp

Node = Any
Bounds = dict[str, str]
# Columns that are wanted of a query, None for all of them.
Wanted = frozenset[str] | None
Known = dict[str, tuple[Node, "Known"]]
Views = Mapping[str, Node]


@dataclass(frozen=True)
class Scan:
    """A read of a table.

    Parameters
    ----------
    table : str
        Its name, without project and dataset.
    bounds : dict
        Columns that constants bound from below, and the constants as GoogleSQL.
    columns : frozenset of str or None
        The columns read, some of other tables among them; None for all of them.
    """

    table: str
    bounds: Bounds
    columns: Wanted


def scans(sql: str, views: Mapping[str, str]) -> Iterator[Scan]:
    """Yield every read of a table in a query; `views` are read as the queries they are."""
    yield from parsed_scans(sql, {name: _parsed(text) for name, text in views.items()})


def parsed_scans(sql: str, views: Views) -> Iterator[Scan]:
    """Yield the same with views that were parsed before, by `sqlglot`."""
    yield from _query(_parsed(sql), {}, None, {}, views)


def _parsed(sql: str) -> Node:
    return sqlglot.parse_one(sql, read="bigquery")


def _query(
    query: Node, bounds: Bounds, wanted: Wanted, known: Known, views: Views
) -> Iterator[Scan]:
    if isinstance(query, exp.Subquery):
        query = query.this
    known = dict(known)
    for part in query.ctes:
        known[part.alias] = (part.this, dict(known))
    if isinstance(query, exp.SetOperation):
        left, right = query.left, query.right
        yield from _query(left, bounds, wanted, known, views)
        # The columns of the second query are those of the first in their order.
        names = dict(zip(_names(left), _names(right), strict=False))
        renamed = {names.get(name, name): bound for name, bound in bounds.items()}
        others = None if wanted is None else frozenset(names.get(name, name) for name in wanted)
        yield from _query(right, renamed, others, known, views)
    elif isinstance(query, exp.Select):
        yield from _select(query, bounds, wanted, known, views)


def _names(query: Node) -> list[str]:
    while isinstance(query, exp.Subquery | exp.SetOperation):
        query = query.this
    names = query.named_selects
    return [] if "*" in names else names


def _select(
    select: exp.Select, bounds: Bounds, wanted: Wanted, known: Known, views: Views
) -> Iterator[Scan]:
    joins = select.args.get("joins") or []
    sources = [source for source in (select.args.get("from_"), *joins) if source]
    own = dict(_conditions(select))
    inherited = {name: bound for name, bound in bounds.items() if not _mixes(select, name)}
    for source in sources:
        relation = source.this
        alias = relation.alias_or_name
        here: Bounds = {}
        for (table, column), bound in own.items():
            if table in ("", alias):
                here[column] = bound
        for name, bound in inherited.items():
            origin = _origin(select, name, alias)
            if origin:
                here.setdefault(origin, bound)
        yield from _source(relation, here, _needed(select, wanted, alias), known, views)
    for nested in _scalar_queries(select):
        yield from _query(nested, {}, None, known, views)


def _source(
    relation: Node, bounds: Bounds, wanted: Wanted, known: Known, views: Views
) -> Iterator[Scan]:
    if isinstance(relation, exp.Subquery):
        yield from _query(relation, bounds, wanted, known, views)
    elif isinstance(relation, exp.Table):
        name = relation.name
        if not relation.db and name in known:
            query, before = known[name]
            yield from _query(query, bounds, wanted, before, views)
        elif name in views:
            yield from _query(views[name], bounds, wanted, {}, views)
        else:
            yield Scan(name, bounds, wanted)


def _needed(select: exp.Select, wanted: Wanted, alias: str) -> Wanted:
    """Return the columns of a source that some columns of a query are made of."""
    joins = select.args.get("joins") or []
    clauses = ("where", "group", "having", "qualify", "order")
    parts = [select.args[clause] for clause in clauses if select.args.get(clause)]
    parts += [*(select.args.get("windows") or []), *(j.args["on"] for j in joins if "on" in j.args)]
    named = {column.name for part in parts for column in part.find_all(exp.Column)}
    literals = select.find_all(exp.Literal)
    numbered = {number.name for number in literals if number.parent_select is select}
    outputs = None if wanted is None or select.args.get("distinct") else wanted | named
    needed: set[str] = set()
    for place, item in enumerate(select.expressions, start=1):
        if item.is_star:
            if getattr(item, "table", "") in ("", alias):
                if wanted is None:
                    return None
                needed |= wanted
        elif outputs is None or item.alias_or_name in outputs or str(place) in numbered:
            parts.append(item)
    for part in parts:
        needed |= {c.name for c in part.find_all(exp.Column) if c.table in ("", alias)}
    needed |= {name.name for join in joins for name in join.args.get("using") or []}
    return frozenset(needed)


def _mixes(select: exp.Select, name: str) -> bool:
    """Whether a bound of the outside on a column would change what windows and groups see."""
    group = select.args.get("group")
    if group and not any(name in _aliases(item, select) for item in group.expressions):
        return True
    if select.args.get("limit"):
        return True
    windows = (each for each in select.find_all(exp.Window) if each.parent_select is select)
    return any(name not in {part.name for part in _parts(select, each)} for each in windows)


def _aliases(item: Node, select: exp.Select) -> set[str]:
    places = {str(place): out for place, out in enumerate(select.named_selects, start=1)}
    return {item.name, places.get(item.name, item.name)}


def _parts(select: exp.Select, window: exp.Window) -> list[Node]:
    if parts := window.args.get("partition_by"):
        return list(parts)
    for definition in select.args.get("windows") or []:
        if definition.this.name == window.alias:
            return list(definition.args.get("partition_by") or [])
    return []


def _conditions(select: exp.Select) -> Iterator[tuple[tuple[str, str], str]]:
    """Yield the columns that a conjunct of WHERE bounds from below by a constant."""
    where = select.args.get("where")
    if where is None:
        return
    for condition in where.this.flatten() if isinstance(where.this, exp.And) else [where.this]:
        condition = condition.unnest()
        if isinstance(condition, exp.GTE | exp.GT | exp.EQ):
            column, bound = _column(condition.this), condition.expression
            if column is not None and not bound.find(exp.Column, exp.Select):
                yield (column.table, column.name), bound.sql("bigquery")


def _column(item: Node) -> exp.Column | None:
    """Return the column that an expression is, or is the day of."""
    if isinstance(item, exp.Date | exp.TsOrDsToDate) and not item.expressions:
        item = item.this
    return item if isinstance(item, exp.Column) else None


def _origin(select: exp.Select, name: str, alias: str) -> str | None:
    """Return the column of a source that is the output column `name`, or whose day it is."""
    for item in select.expressions:
        if not item.is_star and item.alias_or_name == name:
            column = _column(item.unalias())
            return column.name if column is not None and column.table in ("", alias) else None
    stars = (item for item in select.expressions if item.is_star)
    return name if any(getattr(star, "table", "") in ("", alias) for star in stars) else None


def _scalar_queries(select: exp.Select) -> Iterator[Node]:
    """Yield the queries inside expressions: in conditions and columns, not in FROM."""
    for part in [*select.expressions, select.args.get("where"), select.args.get("qualify")]:
        for nested in part.find_all(exp.Select) if part is not None else ():
            if nested.parent_select is select:
                yield nested
