"""Typing and checking of rows before they land: the good ones, and the others with the reason."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from ingest.intervals import INTERVALS_US
from ingest.kind import Column, Kind
from ingest.settings import Market

_INSTANT = pa.timestamp("us", "UTC")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_ARROW_TYPES = {
    "instant": _INSTANT,
    "double": pa.float64(),
    "bigint": pa.int64(),
    "integer": pa.int32(),
    "boolean": pa.bool_(),
    "varchar": pa.string(),
    "double[]": pa.list_(pa.float64()),
}
# As feeds write times, after RFC 2822.
_MAIL_FORMATS = ["%a, %d %b %Y %H:%M:%S %z", "%a, %d %b %Y %H:%M:%S %Z"]
_RECEIVED_AT = Column("received_at", "instant", ("local_time_ns", "local_time_ms", "ts_ms"))
REJECTS_SCHEMA = pa.schema(
    [
        *(
            (name, pa.string())
            for name in ("kind", "exchange", "market", "symbol", "payload", "reason", "source")
        ),
        ("received_at", _INSTANT),
    ]
)


class UnknownLayoutError(ValueError):
    """The columns of a source are not those of the kind it should hold."""


@dataclass(frozen=True)
class Origin:
    """Where rows come from: what lands beside the source's own fields.

    ``constants`` fills columns that the source lacks (symbol, interval, is_aggregate);
    ``received_at`` is UTC and gives way to an arrival time that the source itself recorded.
    ``known_after`` is how long after it was published a reader could have seen a headline of
    which the source does not say when it arrived; None where nobody knows. ``exchange`` and
    ``market`` are None for what is not traded there.
    """

    exchange: str | None
    market: Market | None
    source: str
    received_at: datetime
    constants: tuple[tuple[str, str | bool], ...] = ()
    known_after: timedelta | None = None


@dataclass(frozen=True)
class Checked:
    """Rows in the layout of the kind's raw table, and rejects in that of raw.raw_rejects."""

    rows: pa.Table
    rejects: pa.Table


def raw_schema(kind: Kind) -> pa.Schema:
    """Return the Arrow schema of the kind's raw table."""
    return pa.schema(
        [
            *((name, pa.string()) for name in ("exchange", "market") if kind.is_of_exchange),
            *((column.name, _ARROW_TYPES[column.type]) for column in kind.columns),
            ("source", pa.string()),
            ("received_at", _INSTANT),
        ]
    )


def nothing(kind: Kind) -> Checked:
    """Return no rows and no rejects."""
    return Checked(raw_schema(kind).empty_table(), REJECTS_SCHEMA.empty_table())


def match_columns(
    kind: Kind, names: Sequence[str], *, constants: Sequence[str] = (), where: str
) -> dict[str, str]:
    """Map the kind's column names to those of a source.

    Parameters
    ----------
    kind : Kind
        What the source should hold.
    names : sequence of str
        The source's column names; case does not matter.
    constants : sequence of str
        Columns that are known without the source.
    where : str
        Name of the source, for the message.

    Raises
    ------
    UnknownLayoutError
        If a required column is neither in the source nor known.
    """
    by_lower_name = {name.strip().lower(): name for name in names}
    matched = {}
    missing = []
    for column in (*kind.columns, _RECEIVED_AT):
        found = [name for name in (column.name, *column.aliases) if name in by_lower_name]
        if found:
            matched[column.name] = by_lower_name[found[0]]
        elif column.is_required and column.name not in constants:
            missing.append(" or ".join((column.name, *column.aliases)))
    if missing:
        raise UnknownLayoutError(
            f"{where} does not hold {kind.name}: found the columns {', '.join(names)}; "
            f"missing {'; '.join(missing)}"
        )
    return matched


def check(kind: Kind, table: pa.Table, origin: Origin) -> Checked:
    """Type a source's rows and part the good ones from those that cannot be used.

    Parameters
    ----------
    kind : Kind
        What the rows are.
    table : pyarrow.Table
        Rows with the source's own column names, as text or typed.
    origin : Origin
        What lands beside them.

    Returns
    -------
    Checked
        Every row of the table is in exactly one of the two parts. An optional value that is
        absent stays null; a value that cannot be read makes its row a reject.

    Raises
    ------
    UnknownLayoutError
        If required columns are missing.
    """
    with duckdb.connect() as connection:
        connection.execute("set TimeZone = 'UTC'")
        connection.register("source", table)
        checked = connection.sql(checking(kind, table.schema, origin)).to_arrow_table()
    return parted(kind, table, checked, origin)


def checking(kind: Kind, schema: pa.Schema, origin: Origin) -> str:
    """Return the query that types the rows of a table ``source`` and says what is wrong with them.

    Raises
    ------
    UnknownLayoutError
        If required columns are missing.
    """
    constants = {name: value for name, value in origin.constants if name not in schema.names}
    matched = match_columns(kind, schema.names, constants=tuple(constants), where=origin.source)
    return _query(kind, schema, matched, constants, origin)


def parted(kind: Kind, table: pa.Table, checked: pa.Table, origin: Origin) -> Checked:
    """Part the rows of a table by what the query `checking` said of them, in the same order."""
    is_good = pc.is_null(checked["reason"])
    good = checked.filter(is_good)
    bad = checked.filter(pc.invert(is_good))
    payload = pa.array([], pa.string())
    if len(bad):
        with duckdb.connect() as connection:
            connection.execute("set TimeZone = 'UTC'")
            connection.register("bad", table.filter(pc.invert(is_good)))
            payloads = connection.sql("select to_json(bad)::varchar as payload from bad")
            payload = payloads.to_arrow_table()["payload"]
    bad = bad.append_column("payload", payload)
    schema = raw_schema(kind)
    if kind.subject != "symbol":
        bad = bad.append_column("symbol", bad[kind.subject])
    return Checked(
        rows=_with_origin(good, origin).select(schema.names).cast(schema),
        rejects=_with_origin(bad, origin, kind=kind.name)
        .select(REJECTS_SCHEMA.names)
        .cast(REJECTS_SCHEMA),
    )


def reject(kind: Kind, payloads: Sequence[str], reason: str, origin: Origin) -> pa.Table:
    """Return rejects for rows that could not even be split into columns."""
    symbol = dict(origin.constants).get(kind.subject)
    count = len(payloads)
    table = pa.table(
        {
            "symbol": pa.array([symbol] * count, pa.string()),
            "payload": pa.array(payloads, pa.string()),
            "reason": pa.array([reason] * count, pa.string()),
            "received_at": pa.nulls(count, pa.int64()),
        }
    )
    named = _with_origin(table, origin, kind=kind.name)
    return named.select(REJECTS_SCHEMA.names).cast(REJECTS_SCHEMA)


def _with_origin(table: pa.Table, origin: Origin, *, kind: str | None = None) -> pa.Table:
    arrival = pa.scalar(origin.received_at, _INSTANT)
    received_at = pc.fill_null(table["received_at"].cast(_INSTANT), arrival)
    table = table.drop_columns("received_at").append_column("received_at", received_at)
    for name, value in (
        ("exchange", origin.exchange),
        ("market", origin.market),
        ("source", origin.source),
        *((("kind", kind),) if kind else ()),
    ):
        table = table.append_column(name, pa.repeat(pa.scalar(value, pa.string()), len(table)))
    return table


def _query(
    kind: Kind,
    schema: pa.Schema,
    matched: dict[str, str],
    constants: dict[str, str | bool],
    origin: Origin,
) -> str:
    arrival_us = (origin.received_at - _EPOCH) // timedelta(microseconds=1)
    known_after_us = "null"
    if origin.known_after is not None:
        known_after_us = str(origin.known_after // timedelta(microseconds=1))
    columns = (*kind.columns, _RECEIVED_AT)
    present = [column for column in columns if column.name in matched]
    text = {name: _text(name, schema.field(name).type) for name in schema.names}
    typed = []
    for column in columns:
        if column.name in matched:
            name = matched[column.name]
            value = _typed(column, name, text[name], schema.field(name).type)
        elif column.name in constants:
            value = f"cast({_literal(str(constants[column.name]))} as {column.type})"
        else:
            value = f"cast(null as {_sql_type(column)})"
        typed.append(f'{value} as "{column.name}"')
    unreadable = [
        f'when typed."{column.name}" is null and typed."has {column.name}" '
        f"then '{column.name} cannot be read: {_expectation(column)}'"
        for column in present
    ]
    missing = [
        f"when typed.\"{column.name}\" is null then '{column.name} is missing'"
        for column in kind.columns
        if column.is_required
    ]
    infinite = [
        f"when not isfinite(typed.\"{column.name}\") then '{column.name} is not finite'"
        for column in present
        if column.type == "double"
    ] + [
        f'when not isfinite(list_sum(typed."{column.name}")) '
        f'or list_count(typed."{column.name}") <> len(typed."{column.name}") '
        f"then '{column.name} holds a level that is not finite'"
        for column in present
        if column.type == "double[]"
    ]
    rules = [f"when {rule.condition} then {_literal(rule.reason)}" for rule in kind.rules]
    filled = [
        f'coalesce(typed."{column.name}", {column.default}) as "{column.name}"'
        for column in columns
    ]
    texts = [
        f'{text[matched[column.name]]} is not null as "has {column.name}"' for column in present
    ]
    interval = "cast(null as bigint)"
    if any(column.name == "interval" for column in kind.columns):
        interval = f"map {INTERVALS_US}[typed.interval]"
    elif "interval" in constants:
        interval = str(INTERVALS_US[str(constants["interval"])])
    return f"""
        with
        typed as (select {", ".join([*typed, *texts])} from source),
        stepped as (
            select
                typed.*,
                {interval} as interval_us,
                {arrival_us} as arrival_us,
                cast({known_after_us} as bigint) as known_after_us
            from typed
        ),
        filled as (
            select
                {", ".join(filled)},
                case {" ".join([*unreadable, *missing, *infinite])} end as fault,
                interval_us,
                arrival_us
            from stepped as typed
        )
        select
            * exclude (fault, interval_us, arrival_us),
            coalesce(fault, case {" ".join(rules)} end) as reason
        from filled
    """


def _typed(column: Column, name: str, text: str, type_: pa.DataType) -> str:
    if column.type == "instant":
        if pa.types.is_timestamp(type_):
            return f'epoch_us(source."{name}")'
        number = f"try_cast({text} as bigint)"
        written = f"cast({text} as varchar)"
        mail = f"try_strptime({written}, {_MAIL_FORMATS})"
        iso = f"coalesce(try_cast({written} as timestamptz), {mail})"
        return f"""case
            when {number} between 1000000000000 and 9999999999999 then {number} * 1000
            when {number} between 1000000000000000 and 9999999999999999 then {number}
            when {number} >= 1000000000000000000 then {number} // 1000
            when {number} is null then epoch_us({iso})
        end"""
    if column.type == "double[]":
        return f'try_cast(source."{name}" as double[])'
    if column.type == "varchar":
        return f"cast({text} as varchar)"
    if pa.types.is_string(type_) or pa.types.is_dictionary(type_):
        return f"try_cast({text} as {column.type})"
    return f'try_cast(source."{name}" as {column.type})'


def _text(name: str, type_: pa.DataType) -> str:
    if pa.types.is_string(type_) or pa.types.is_dictionary(type_):
        return f"nullif(trim(source.\"{name}\"), '')"
    return f'source."{name}"'


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _sql_type(column: Column) -> str:
    return "bigint" if column.type == "instant" else column.type


def _expectation(column: Column) -> str:
    if column.type == "instant":
        return "expected epoch milliseconds, microseconds or nanoseconds"
    return f"expected {column.type}"
