"""The warehouse file: the only place where Python opens it.

DuckDB gives a file to one writing process, and a writer shuts readers out; sessions are
therefore short, and whoever finds the file taken waits and, in the end, names the holder.
"""

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb
from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_random_exponential

from ingest.settings import snapshot_path

RAW_SCHEMA = Path(__file__).with_name("raw.sql")


class WarehouseBusyError(RuntimeError):
    """Another process held the warehouse file for longer than the caller would wait."""


class WarehouseMissingError(RuntimeError):
    """There is no warehouse file to read."""


class CloudError(RuntimeError):
    """BigQuery cannot be used as asked; the message says what to do."""


@contextmanager
def writing(database: Path, *, timeout_s: float = 600.0) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open the warehouse to write, creating the file and the raw tables where missing.

    Parameters
    ----------
    database : Path
        The warehouse file; its directory is created.
    timeout_s : float
        Seconds to wait while another process holds the file.

    Yields
    ------
    duckdb.DuckDBPyConnection
        A connection in time zone UTC, closed at the end of the block.

    Raises
    ------
    WarehouseBusyError
        If the file is still held after ``timeout_s``; the message names the process.
    """
    database.parent.mkdir(parents=True, exist_ok=True)
    connection = _connect(database, read_only=False, timeout_s=timeout_s)
    try:
        connection.execute(RAW_SCHEMA.read_text())
        yield connection
    finally:
        connection.close()


@contextmanager
def reading(database: Path, *, timeout_s: float = 600.0) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open the warehouse read-only, in time zone UTC.

    Raises
    ------
    WarehouseMissingError
        If there is no such file.
    WarehouseBusyError
        If a writer still holds the file after ``timeout_s``; the message names the process.
    """
    if not database.is_file():
        raise WarehouseMissingError(
            f"there is no warehouse at {database}: run `tapehouse ingest` or `make demo` first, "
            "or point TAPEHOUSE_DATABASE at an existing file"
        )
    connection = _connect(database, read_only=True, timeout_s=timeout_s)
    try:
        yield connection
    finally:
        connection.close()


def wait_for_writer(database: Path, *, timeout_s: float = 600.0) -> None:
    """Return once the warehouse file can be opened to write.

    Raises
    ------
    WarehouseBusyError
        If the file is still held after ``timeout_s``; the message names the process.
    """
    if database.exists():
        _connect(database, read_only=False, timeout_s=timeout_s).close()


def holder(database: Path) -> str | None:
    """Return which process holds the warehouse file against readers now, None if none does."""
    try:
        with reading(database, timeout_s=0.0):
            return None
    except WarehouseBusyError as error:
        return _holder(error.__cause__ or error)


def publish_snapshot(database: Path, *, timeout_s: float = 600.0) -> Path:
    """Replace the readers' copy of the warehouse by its present state, atomically.

    Returns
    -------
    Path
        The copy; readers that have the previous one open keep it undisturbed.
    """
    with writing(database, timeout_s=timeout_s) as connection:
        connection.execute("checkpoint")
    snapshot = snapshot_path(database)
    partial = snapshot.with_name(f"{snapshot.name}.{os.getpid()}.part")
    with reading(database, timeout_s=timeout_s):
        # Closing the copied file drops this process's lock on it (POSIX), so nothing may follow.
        shutil.copyfile(database, partial)
    partial.replace(snapshot)
    return snapshot


def _connect(database: Path, *, read_only: bool, timeout_s: float) -> duckdb.DuckDBPyConnection:
    attempts = Retrying(
        retry=retry_if_exception(_is_held),
        wait=wait_random_exponential(multiplier=0.05, max=2),
        stop=stop_after_delay(timeout_s),
        reraise=True,
    )
    try:
        connection = attempts(duckdb.connect, str(database), read_only=read_only)
    except (duckdb.IOException, duckdb.ConnectionException) as error:
        if not _is_held(error):
            raise
        raise WarehouseBusyError(
            f"{database} is held by {_holder(error)} and was not released within "
            f"{timeout_s:g} s: wait for it to finish or stop it, then run this again"
        ) from error
    connection.execute("set global TimeZone = 'UTC'")
    return connection


def _is_held(error: BaseException) -> bool:
    if isinstance(error, duckdb.IOException):
        return "Could not set lock on file" in str(error)
    return isinstance(error, duckdb.ConnectionException) and "different configuration" in str(error)


def _holder(error: BaseException) -> str:
    process = re.search(r"held in (.+? \(PID \d+\))", str(error))
    if process:
        return process.group(1)
    return "another connection of this process"
