"""What dbt sent to BigQuery, statement by statement, for Google's analyser."""

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from bigquery_project import Statement, Types, flat
from google.cloud import bigquery

from ingest.bigquery import BigQuery
from ingest.settings import Settings

COMMENT = re.compile(r'/\* (\{"app": "dbt".*?\}) \*/', re.DOTALL)
MADE = re.compile(r"\s*create or replace (?:table|view) `([^`]+)`")
UNIT_TEST = '"node_id": "unit_test.'
# https://cloud.google.com/bigquery/docs/information-schema-partitions
VIEW = "INFORMATION_SCHEMA.PARTITIONS"
PARTITIONS: Types = {
    **dict.fromkeys(("table_catalog", "table_schema", "table_name", "partition_id"), "STRING"),
    **dict.fromkeys(("total_rows", "total_logical_bytes", "total_billable_bytes"), "INT64"),
    "last_modified_time": "TIMESTAMP",
    "storage_tier": "STRING",
}
NAMES = {"FLOAT": "FLOAT64", "INTEGER": "INT64", "BOOLEAN": "BOOL"}


def issued(settings: Settings) -> list[Statement]:
    """Return every statement of dbt over the dataset, in the order in which they were sent.

    Those of unit tests are over no dataset.

    Its name is that of the node and two numbers: of the job, and of the statement in its script.
    """
    cloud = BigQuery(settings)
    lately = datetime.now(UTC) - timedelta(hours=6)
    jobs = [
        job
        for job in cloud.client.list_jobs(page_size=1_000_000, min_creation_time=lately)
        if job.job_type == "query"
        and (f"`{settings.bigquery_dataset}`" in job.query or UNIT_TEST in job.query)
    ]
    jobs.sort(key=lambda job: job.created)
    return [
        statement for number, job in enumerate(jobs) for statement in statements(number, job.query)
    ]


def statements(number: int, script: str) -> Iterator[Statement]:
    """Yield the statements of a script, which dbt's comment says who sent."""
    comment = COMMENT.search(script)
    node = json.loads(comment[1]).get("node_id", "dbt") if comment else "dbt"
    parts = re.split(r";\s*$", COMMENT.sub("", script), flags=re.MULTILINE)
    for place, sql in enumerate(parts):
        if sql.strip():
            text = flat(re.sub(rf"\.{VIEW}\b", f".`{VIEW}`", sql))
            text = text.replace(f"`.`{VIEW}`", f".{VIEW}`")
            name = f"{node} {number}.{place}"
            made = MADE.match(text)
            yield {
                "name": name,
                "node": node,
                "relation": made[1] if made else name,
                "sql": text,
                "reads": sorted(set(re.findall(r"`([^`]+\.[^`]+\.[^`]+)`", text))),
            }


def tables_there(settings: Settings, sent: list[Statement]) -> dict[str, Types]:
    """Return the columns of the tables that no statement made: raw rows, seeds, predictions."""
    cloud = BigQuery(settings)
    partitions = f"{cloud.client.project}.{settings.bigquery_raw_dataset}.{VIEW}"
    made = {statement["relation"] for statement in sent}
    return {partitions: PARTITIONS} | {
        name: {field.name: type_of(field) for field in cloud.client.get_table(table).schema}
        for dataset in (settings.bigquery_dataset, settings.bigquery_raw_dataset)
        for table in cloud.client.list_tables(dataset)
        if (name := f"{table.project}.{table.dataset_id}.{table.table_id}") not in made
    }


def type_of(field: bigquery.SchemaField) -> str:
    kind = NAMES.get(field.field_type, field.field_type)
    return f"ARRAY<{kind}>" if field.mode == "REPEATED" else kind
