"""SQLAlchemy engines for analysis of either warehouse."""

from typing import Any

import sqlalchemy
import sqlalchemy.event

from ingest.settings import Settings
from ingest.warehouse import WarehouseMissingError


def engine(settings: Settings) -> sqlalchemy.Engine:
    """Return an engine for the warehouse that the settings mean, for reading.

    Parameters
    ----------
    settings : Settings
        Of DuckDB the snapshot that a build publishes is opened, read-only, so nobody waits for
        the reader; of BigQuery the dataset of the dbt project is the default one.

    Returns
    -------
    sqlalchemy.Engine
        Of DuckDB in time zone UTC. Its reflection does not work with DuckDB 2: tables are told by
        `information_schema`.

    Raises
    ------
    WarehouseMissingError
        If no build has published a snapshot yet.
    CloudError
        If there are no Google credentials.

    Examples
    --------
    >>> import pandas as pd
    >>> from ingest.engines import engine
    >>> from ingest.settings import Settings
    >>> with engine(Settings()).connect() as connection:
    ...     bars = pd.read_sql_query("select * from int_bars limit 10", connection)
    """
    if settings.target == "bigquery":
        from ingest.bigquery import BigQuery

        client = BigQuery(settings).analyst
        return sqlalchemy.create_engine(
            f"bigquery://{client.project}/{settings.bigquery_dataset}?user_supplied_client=True",
            connect_args={"client": client},
        )
    if not settings.snapshot.exists():
        raise WarehouseMissingError(
            f"there is no snapshot at {settings.snapshot}: Dagster's jobs and "
            "`tapehouse demo` publish one after each build"
        )
    local = sqlalchemy.create_engine(
        sqlalchemy.URL.create("duckdb", database=str(settings.snapshot)),
        connect_args={"read_only": True},
    )
    sqlalchemy.event.listen(local, "connect", _use_utc)
    return local


def _use_utc(connection: Any, _record: object) -> None:
    connection.execute("set TimeZone = 'UTC'")
