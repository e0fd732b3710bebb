"""BigQuery for tests of the client code: the emulator, and the service where one may use it.

`TAPEHOUSE_BIGQUERY_TEST_PROJECT` names a Google Cloud project in which the credentials of the
environment may create and delete datasets; the tests for the service skip without it.
"""

import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from bigquery_emulator import Emulator

from ingest.bigquery import BigQuery
from ingest.settings import Settings

SERVICE_PROJECT = os.environ.get("TAPEHOUSE_BIGQUERY_TEST_PROJECT")


@pytest.fixture(params=["emulator", "service"])
def cloud_settings(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[Settings]:
    """Settings whose target is BigQuery, with datasets of the test's own."""
    name = uuid.uuid4().hex[:12]
    environment = {
        "TAPEHOUSE_TARGET": "bigquery",
        "TAPEHOUSE_BIGQUERY_DATASET": f"test_{name}",
        "TAPEHOUSE_BIGQUERY_RAW_DATASET": f"test_raw_{name}",
    }
    if request.param == "service":
        if not SERVICE_PROJECT:
            pytest.skip("TAPEHOUSE_BIGQUERY_TEST_PROJECT names no project of Google's service")
        environment["TAPEHOUSE_BIGQUERY_PROJECT"] = SERVICE_PROJECT
    else:
        emulator: Emulator = request.getfixturevalue("bigquery_emulator")
        environment |= emulator.environment(environment["TAPEHOUSE_BIGQUERY_DATASET"])
    for variable, value in environment.items():
        monkeypatch.setenv(variable, value)
    settings = Settings(database=tmp_path / "tapehouse.duckdb")
    # Made before: a test may lead later clients astray.
    client = BigQuery(settings).client
    yield settings
    for dataset in (settings.bigquery_dataset, settings.bigquery_raw_dataset):
        client.delete_dataset(dataset, delete_contents=True, not_found_ok=True)


def rows_of(settings: Settings, sql: str) -> list[tuple[Any, ...]]:
    """Return the rows of a query whose tables are those of the raw dataset."""
    rows = BigQuery(settings).query(sql)
    return [tuple(row.values()) for row in rows.to_pylist()]
