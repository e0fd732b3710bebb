"""What the warehouse says of its tables, as metadata of assets."""

from ingest import warehouse
from ingest.settings import Settings


def metrics(settings: Settings) -> dict[str, str | float]:
    """Return the verdict on the active model and the value of each criterion, by name."""
    with warehouse.reading(settings.database, timeout_s=settings.writer_timeout_s) as connection:
        rows = connection.execute("select criterion, value, verdict from trd_verdict").fetchall()
    verdict: dict[str, str | float] = {"verdict": rows[0][2]} if rows else {}
    return verdict | {name: value for name, value, _ in rows if value is not None}


def row_counts(settings: Settings) -> dict[str, int]:
    """Return the number of rows of each table of the dbt project, by name; views are left out."""
    with warehouse.reading(settings.database, timeout_s=settings.writer_timeout_s) as connection:
        names = connection.execute(
            "select table_name from duckdb_tables() where schema_name = 'main'"
        ).fetchall()
        return {
            name: connection.execute(f'select count(*) from "{name}"').fetchall()[0][0]
            for (name,) in names
        }
