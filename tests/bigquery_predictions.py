"""Predictions of DuckDB's models in BigQuery, for what is built on them where no model runs."""

from typing import Any

import duckdb
import pyarrow as pa
from bigquery_fixtures import load, table_of_duckdb
from google.cloud import bigquery

from ingest.bigquery import BigQuery
from ingest.settings import Settings
from ml import cloud_model, lifecycle

TABLES = ("order_flow", "order_flow_members", "order_flow_shuffled", "order_flow_stacked")
KEY = "exchange, market, symbol, interval_minutes, opened_at"
TYPES = {
    pa.string(): "STRING",
    pa.float64(): "FLOAT64",
    pa.int32(): "INT64",
    pa.bool_(): "BOOL",
    pa.timestamp("us", "UTC"): "TIMESTAMP",
}


def tell_the_future(settings: Settings) -> None:
    """Move probabilities to what came of the bars, so that there are thresholds and trades."""
    with duckdb.connect(settings.database) as connection:
        for table in TABLES:
            if not table.endswith("shuffled"):
                connection.execute(
                    f"""
                    update pred_{table} as predictions
                    set probability = 0.6 * predictions.probability + 0.4 * is_up_5::integer
                    from ds_order_flow as came
                    where is_up_5 is not null
                        and ({", ".join(f"predictions.{name}" for name in KEY.split(", "))})
                        = ({", ".join(f"came.{name}" for name in KEY.split(", "))})
                    """
                )


def copy_predictions(settings: Settings) -> None:
    """Make the tables of the predictions in BigQuery, with DuckDB's rows."""
    cloud = BigQuery(settings)
    for table in TABLES:
        rows = table_of_duckdb(settings, f"pred_{table}")
        for place, field in enumerate(rows.schema):
            if pa.types.is_timestamp(field.type):
                column = rows[field.name].cast(pa.timestamp("us", "UTC"))
                rows = rows.set_column(place, field.name, column)
        fields = [bigquery.SchemaField(field.name, TYPES[field.type]) for field in rows.schema]
        cloud.client.create_table(bigquery.Table(cloud.model(f"pred_{table}"), schema=fields))
        load(cloud, cloud.model(f"pred_{table}"), rows)


def imported_models(settings: Settings) -> dict[str, dict[str, Any]]:
    """Return what `tapehouse models export` prints of every model, without the upload."""
    with duckdb.connect(settings.database, read_only=True) as connection:
        connection.execute("set timezone = 'UTC'")
        return {
            version.name: cloud_model.describe(connection, version) | {"path": "gs://models/x.onnx"}
            for version in lifecycle.versions(connection)
            if version.stage == "champion"
        }
