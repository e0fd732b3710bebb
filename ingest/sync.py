"""Copies of the raw history between DuckDB and BigQuery, through Parquet, told apart by checksums.

What is to be copied is what differs: a run that was interrupted is taken up by running it again.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import duckdb

from ingest.raw_tables import RawTable, raw_tables
from ingest.settings import Settings, Target
from ingest.stores import CloudStore, Digests, FileStore, Key, Store

ROWS_AT_ONCE = 500_000
# They say what the other tables hold, so they come when those are complete.
LEDGERS = ("landings", "log_landings")


@dataclass(frozen=True)
class Compared:
    """A raw table after a run.

    Parameters
    ----------
    table : str
        Its name.
    groups : int
        Groups of one UTC day and symbol that the source has.
    copied : int
        Rows that were copied.
    rows : int
        Rows of the source.
    missing : tuple of (date, str or None)
        Groups whose rows the target still lacks; none after a run that worked.
    extra : tuple of (date, str or None)
        Groups of which the target has more rows than the source.
    """

    table: str
    groups: int
    copied: int
    rows: int
    missing: tuple[Key, ...]
    extra: tuple[Key, ...]


def sync(
    settings: Settings,
    target: Target,
    *,
    tables: Sequence[str] = (),
    start: datetime = datetime(1970, 1, 1, tzinfo=UTC),
    end: datetime = datetime(9999, 1, 1, tzinfo=UTC),
    on_step: Callable[[str], None] = lambda _: None,
) -> list[Compared]:
    """Bring a warehouse the raw rows that it lacks of the other one's, and compare both.

    Nothing is deleted or changed: a group of which the target has rows of its own keeps them.
    The ledgers are copied last, and only by a run over all tables and days after which no group is
    missing: a ledger's row that speaks of what is not there would keep it from landing for ever.

    Parameters
    ----------
    settings : Settings
        Names both warehouses.
    target : {"duckdb", "bigquery"}
        Which one receives.
    tables : sequence of str
        Names of raw tables; all by default.
    start, end : datetime
        UTC days to look at, from the first to before the second.
    on_step : callable
        Told what is being done.

    Returns
    -------
    list of Compared
        One per table.

    Raises
    ------
    ValueError
        If there is no such raw table.
    WarehouseMissingError, CloudError
        If a warehouse cannot be used.
    """
    known = raw_tables()
    if unknown := sorted(set(tables) - set(known)):
        raise ValueError(f"there is no raw table {', '.join(unknown)}: {', '.join(known)}")
    stores: dict[Target, Store] = {"duckdb": FileStore(settings), "bigquery": CloudStore(settings)}
    there = stores.pop(target)
    (here,) = stores.values()
    here.prepare(is_source=True)
    there.prepare(is_source=False)
    is_whole = not tables and start.year == 1970 and end.year == 9999
    names = tables or [name for name in known if name not in LEDGERS]
    days = (start, end)
    done = [_table(here, there, known[name], days, on_step) for name in names]
    if is_whole and not any(compared.missing for compared in done):
        done += [
            _table(here, there, known[name], days, on_step) for name in LEDGERS if name in known
        ]
    return done


def _table(
    here: Store,
    there: Store,
    table: RawTable,
    days: tuple[datetime, datetime],
    on_step: Callable[[str], None],
) -> Compared:
    on_step(f"{table.name}: comparing")
    wanted = here.digests(table, *days)
    present = there.digests(table, *days)
    copied = 0
    for keys in _parts(wanted, present):
        on_step(f"{table.name}: {keys[0][0]} to {keys[-1][0]}")
        states = [(key, wanted[key], present.get(key)) for key in keys]
        name = hashlib.sha256(repr(states).encode()).hexdigest()[:32]
        with TemporaryDirectory(prefix="tapehouse-sync-") as directory:
            file = Path(directory, "lacking.parquet")
            is_new = not any(key in present for key in keys)
            count = _lacking(here, None if is_new else there, table, keys, file)
            if count:
                there.append(table, file, name)
            copied += count
    if copied:
        on_step(f"{table.name}: verifying")
        present = there.digests(table, *days)
    differing = [key for key, digest in wanted.items() if present.get(key) != digest]
    extra = [key for key in differing if present.get(key, (0, ""))[0] > wanted[key][0]]
    return Compared(
        table.name,
        len(wanted),
        copied,
        sum(row_count for row_count, _ in wanted.values()),
        tuple(key for key in differing if key not in extra),
        tuple(extra),
    )


def _parts(wanted: Digests, present: Digests) -> Iterator[list[Key]]:
    """Yield the groups that differ, as many at once as have half a million rows, or one.

    A part has no day in between that is the same on both sides: it would be read for nothing.
    """
    differing = [key for key, digest in wanted.items() if present.get(key) != digest]
    days = sorted({day for day, _ in wanted.keys() | present.keys()})
    following = dict(pairwise(days))
    part: list[Key] = []
    rows = 0
    for key in sorted(differing, key=lambda key: (key[0], key[1] or "")):
        is_next = part and key[0] in (part[-1][0], following.get(part[-1][0]))
        if part and (rows + wanted[key][0] > ROWS_AT_ONCE or not is_next):
            yield part
            part, rows = [], 0
        part.append(key)
        rows += wanted[key][0]
    if part:
        yield part


def _lacking(here: Store, there: Store | None, table: RawTable, keys: list[Key], file: Path) -> int:
    """Write the rows of some groups that the target has not got, and return how many."""
    first, last = _midnight(keys[0][0]), _midnight(keys[-1][0]) + timedelta(days=1)
    source, kept = file.with_name("source.parquet"), file.with_name("kept.parquet")
    here.export(table, first, last, source)
    rows = _of_keys(table, source)
    if there:
        there.export(table, first, last, kept)
        # Rows may repeat: each is to be there as often as the source has it, or oftener.
        rows = f"{rows} except all {_of_keys(table, kept)}"
    with duckdb.connect(":memory:") as connection:
        connection.execute("set TimeZone = 'UTC'")
        connection.execute("create table keys (day date, subject varchar)")
        connection.executemany("insert into keys values (?, ?)", keys)
        connection.execute(f"copy ({rows}) to '{file}' (format parquet, compression zstd)")
        ((count,),) = connection.execute(f"select count(*) from '{file}'").fetchall()
    return int(count)


def _of_keys(table: RawTable, file: Path) -> str:
    names = ", ".join(f'"{name}"' for name, _ in table.columns)
    subject = f'"{table.subject}"' if table.subject else "null"
    return (
        f"select {names} from '{file}' as landed semi join keys on "
        f'cast(landed."{table.event_time}" as date) = keys.day '
        f"and {subject} is not distinct from keys.subject"
    )


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time.min, UTC)
