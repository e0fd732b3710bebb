"""A query that is planned before its rows are there.

To plan one of the project's models takes DuckDB far longer (5 to 100 ms) than to run it over the
rows of a few bars (1 to 3 ms), and a prepared statement is planned again each time it runs. So a
query here reads tables that are Arrow streams: DuckDB plans it from their schemas, asks for the
first stream, and waits there until it is given the rows. It is planned again when it is told to,
so that the planning of one query does not take the processors from the next.
"""

import queue
import threading
from collections.abc import Mapping
from typing import Any

import duckdb
import pyarrow as pa

Tables = Mapping[str, pa.Table]


class _StoppedError(Exception):
    """The query is not to run any more."""


class PlannedQuery:
    """A query on a thread of its own, planned and waiting for its next tables.

    Parameters
    ----------
    name : str
        What it is called where it is done.
    sql : str
        The query.
    database : str
        The catalogue that the query names.
    schemas : mapping of str to pyarrow.Schema
        By the quoted relation, the columns that each table will have.
    views : mapping of str to str
        By the quoted relation, the query of each view that it reads, ancestors first; they may
        give tables further columns.
    done : queue.SimpleQueue
        Gets (name, result) each time the query has run; the result is a table or an exception.
    """

    def __init__(
        self,
        name: str,
        sql: str,
        *,
        database: str,
        schemas: Mapping[str, pa.Schema],
        views: Mapping[str, str],
        done: "queue.SimpleQueue[tuple[str, pa.Table | Exception]]",
    ) -> None:
        self._name = name
        self._done = done
        self._tables: Tables | None = None
        self._given = threading.Event()
        self._planning = threading.Event()
        self._planning.set()
        self._stopped = False
        # With one thread DuckDB has none of its own that could wait for the rows.
        self._connection = duckdb.connect(":memory:", config={"threads": 1})
        self._connection.execute("set TimeZone = 'UTC'").fetchall()
        self._connection.execute("set enable_progress_bar = false").fetchall()
        self._connection.execute(f"attach ':memory:' as \"{database}\"").fetchall()
        for relation, schema in schemas.items():
            self._connection.register(relation, _Input(self, relation, schema))
        for relation, query in views.items():
            catalogue, name_of_schema, _ = relation.split(".")
            self._connection.execute(
                f"create schema if not exists {catalogue}.{name_of_schema}"
            ).fetchall()
            self._connection.execute(f"create view {relation} as {query}").fetchall()
        self._relation = self._connection.sql(sql)
        self._thread = threading.Thread(target=self._loop, name=name, daemon=True)
        self._thread.start()

    def run(self, tables: Tables) -> None:
        """Let the query run over these tables, by quoted relation."""
        self._tables = tables
        self._given.set()
        self._planning.set()

    def plan(self) -> None:
        """Have the query planned for its next run; one that runs unplanned takes the longer."""
        self._planning.set()

    def stop(self) -> None:
        """End the thread."""
        self._stopped = True
        self._given.set()
        self._planning.set()
        self._thread.join()
        self._connection.close()

    def table(self, relation: str) -> pa.Table:
        """Return a table's rows once they are given."""
        self._given.wait()
        if self._stopped or self._tables is None:
            raise _StoppedError
        return self._tables[relation]

    def _loop(self) -> None:
        while True:
            self._planning.wait()
            result: pa.Table | Exception
            try:
                result = self._relation.to_arrow_table()
            except duckdb.Error as error:
                if self._stopped:
                    return
                result = error
            if self._stopped:
                return
            self._given.clear()
            self._planning.clear()
            self._tables = None
            self._done.put((self._name, result))


class _Input:
    """A table as DuckDB sees it: its columns when it plans, its rows when it runs."""

    def __init__(self, query: PlannedQuery, relation: str, schema: pa.Schema) -> None:
        self._query = query
        self._relation = relation
        self._schema = schema

    def __arrow_c_schema__(self) -> Any:
        return self._schema.__arrow_c_schema__()

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        return self._query.table(self._relation).__arrow_c_stream__(requested_schema)
