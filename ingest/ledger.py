"""What the ledger says has landed: files, archives, and spans of time."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import duckdb

from ingest import warehouse
from ingest.batches import Series
from ingest.kind import KindName
from ingest.settings import Settings


def landed_files(
    settings: Settings, kind: KindName, statement: str = ""
) -> set[tuple[Series, str]]:
    """Return what the ledger holds of a kind: series, and sha256 of the file.

    ``statement`` is what ``source`` must end in: what was said of a file beside its content.
    """
    with _ledger(settings, kind) as connection:
        rows = connection.execute(
            """
            select market, symbol, "interval", sha256
            from raw.landings
            where
                exchange = $exchange
                and kind = $kind
                and sha256 is not null
                and ends_with(source, $statement)
            """,
            {"exchange": settings.exchange, "kind": kind, "statement": statement},
        ).fetchall()
    return {
        (Series(kind, market, symbol, interval), sha256)
        for market, symbol, interval, sha256 in rows
    }


def landed_archives(
    settings: Settings, series: Series, start: datetime, end: datetime
) -> list[tuple[str, datetime, datetime, str]]:
    """Return source, span and sha256, as landed last, of a series' archives in ``[start, end)``."""
    with _ledger(settings, series.kind) as connection:
        rows = connection.execute(
            """
            select source, epoch_us(covered_from), epoch_us(covered_until), sha256
            from raw.landings
            where
                exchange = $exchange
                and kind = $kind
                and market = $market
                and symbol = $symbol
                and "interval" is not distinct from $interval
                and starts_with(source, 'archive:')
                and covered_from < $end
                and covered_until > $start
            qualify row_number() over (partition by source order by landed_at desc) = 1
            order by covered_from
            """,
            {**_key(settings, series), "start": start, "end": end},
        ).fetchall()
    return [
        (source, _instant(first), _instant(last), sha256) for source, first, last, sha256 in rows
    ]


def first_covered(settings: Settings, kind: KindName) -> datetime | None:
    """Return where the history that was taken from the exchange begins, None if there is none."""
    with _ledger(settings, kind) as connection:
        ((first,),) = connection.execute(
            "select epoch_us(min(covered_from)) from raw.landings where kind = ? and exchange = ?",
            [kind, settings.exchange],
        ).fetchall()
    return None if first is None else _instant(first)


def covered(settings: Settings, series: Series) -> list[tuple[datetime, datetime]]:
    """Return the spans of time for which all of a series has landed, in order, merged."""
    with _ledger(settings, series.kind) as connection:
        rows = connection.execute(
            """
            select epoch_us(covered_from), epoch_us(covered_until)
            from raw.landings
            where
                exchange = $exchange
                and kind = $kind
                and market = $market
                and symbol = $symbol
                and "interval" is not distinct from $interval
                and covered_until > covered_from
            order by covered_from
            """,
            _key(settings, series),
        ).fetchall()
    merged: list[tuple[int, int]] = []
    for start, end in rows:
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return [(_instant(start), _instant(end)) for start, end in merged]


def missing(
    settings: Settings, series: Series, start: datetime, end: datetime
) -> list[tuple[datetime, datetime]]:
    """Return the spans of ``[start, end)`` that have not landed, oldest first."""
    spans = []
    cursor = start
    for covered_from, covered_until in covered(settings, series):
        if covered_from > cursor:
            spans.append((cursor, min(covered_from, end)))
        cursor = max(cursor, covered_until)
        if cursor >= end:
            break
    if cursor < end:
        spans.append((cursor, end))
    return [(first, last) for first, last in spans if first < last]


@contextmanager
def _ledger(settings: Settings, kind: KindName) -> Iterator[duckdb.DuckDBPyConnection]:
    """Yield a database that holds the ledger's rows of a kind, wherever the warehouse is."""
    if settings.target == "bigquery":
        from ingest.bigquery import BigQuery, copied

        rows = BigQuery(settings).ledger("landings", exchange=settings.exchange, kind=kind)
        with copied({"raw.landings": rows}) as connection:
            yield connection
    elif settings.database.exists():
        timeout_s = settings.writer_timeout_s
        with warehouse.reading(settings.database, timeout_s=timeout_s) as connection:
            yield connection
    else:
        with duckdb.connect(":memory:") as connection:
            connection.execute(warehouse.RAW_SCHEMA.read_text())
            yield connection


def _key(settings: Settings, series: Series) -> dict[str, str | None]:
    return {
        "exchange": settings.exchange,
        "kind": series.kind,
        "market": series.market,
        "symbol": series.symbol,
        "interval": series.interval,
    }


def _instant(microseconds: int) -> datetime:
    seconds, rest = divmod(microseconds, 1_000_000)
    return datetime.fromtimestamp(seconds, UTC).replace(microsecond=rest)
