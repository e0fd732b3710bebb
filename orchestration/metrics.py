"""What the warehouse says of its tables, as metadata of assets."""

from ingest import warehouse
from ingest.settings import Settings


def metrics(settings: Settings) -> dict[str, str | float]:
    """Return the verdict on the active model and the value of each criterion, by name."""
    query = "select criterion, value, verdict from {schema}.trd_verdict where strategy = 'model'"
    rows: list[tuple[str, float | None, str]]
    if settings.target == "bigquery":
        from ingest.bigquery import BigQuery

        found = BigQuery(settings).query(query.format(schema=settings.bigquery_dataset))
        rows = [(row["criterion"], row["value"], row["verdict"]) for row in found.to_pylist()]
    else:
        timeout_s = settings.writer_timeout_s
        with warehouse.reading(settings.database, timeout_s=timeout_s) as connection:
            rows = connection.execute(query.format(schema="main")).fetchall()
    verdict: dict[str, str | float] = {"verdict": rows[0][2]} if rows else {}
    return verdict | {name: value for name, value, _ in rows if value is not None}


def row_counts(settings: Settings) -> dict[str, int]:
    """Return the number of rows of each table of the dbt project, by name; views are left out."""
    if settings.target == "bigquery":
        from ingest.bigquery import BigQuery

        return BigQuery(settings).row_counts(settings.bigquery_dataset)
    with warehouse.reading(settings.database, timeout_s=settings.writer_timeout_s) as connection:
        names = connection.execute(
            "select table_name from duckdb_tables() where schema_name = 'main'"
        ).fetchall()
        return {
            name: connection.execute(f'select count(*) from "{name}"').fetchall()[0][0]
            for (name,) in names
        }


def raw_row_count(settings: Settings, table: str) -> int:
    """Return the number of rows of a raw table."""
    if settings.target == "bigquery":
        from ingest.bigquery import BigQuery

        found = BigQuery(settings).query(f"select count(*) as row_count from {table}")
        return int(found["row_count"][0].as_py())
    with warehouse.reading(settings.database, timeout_s=settings.writer_timeout_s) as connection:
        ((count,),) = connection.execute(f"select count(*) from raw.{table}").fetchall()
    return int(count)
