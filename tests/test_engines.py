"""SQLAlchemy on both warehouses: the same question, the same answer."""

import os
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import pytest
from bigquery_emulator import Emulator
from cloud_faults import faulty

from ingest import warehouse
from ingest.bigquery import BigQuery
from ingest.engines import engine
from ingest.settings import Settings
from ingest.sync import sync

QUESTION = """
    select symbol, count(*) as row_count, max(price) as highest, min(transact_time) as first_at
    from {schema}.trades
    group by symbol
    order by symbol
"""


def fill(settings: Settings) -> None:
    with warehouse.writing(settings.database) as connection:
        connection.execute(
            """
            insert into raw.trades by name
            select symbol, number as trade_id, number / 4 as price,
                timestamptz '2024-01-01 00:00:00+00' + to_seconds(number) as transact_time
            from range(10) as numbers (number), (values ('BTCUSDT'), ('ETHUSDT')) as s (symbol)
            """
        )
    warehouse.publish_snapshot(settings.database)


def test_both_warehouses_answer_pandas_through_sqlalchemy(cloud_settings: Settings) -> None:
    fill(cloud_settings)
    sync(cloud_settings, "bigquery", tables=["trades"])
    BigQuery(cloud_settings).client.create_dataset(cloud_settings.bigquery_dataset)
    local = cloud_settings.model_copy(update={"target": "duckdb"})
    schemas = [(local, "raw"), (cloud_settings, cloud_settings.bigquery_raw_dataset)]
    answers = []
    for settings, schema in schemas:
        with engine(settings).connect() as connection:
            answer = pd.read_sql_query(QUESTION.format(schema=schema), connection)
        answers.append(list(answer.itertuples(index=False, name=None)))
    first = pd.Timestamp(datetime(2024, 1, 1, tzinfo=UTC))
    assert answers[0] == [(symbol, 10, 2.25, first) for symbol in ("BTCUSDT", "ETHUSDT")]
    assert answers[1] == answers[0]


def test_tables_of_the_dbt_project_need_no_dataset(
    cloud_settings: Settings, bigquery_emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    if os.environ["TAPEHOUSE_BIGQUERY_PROJECT"] != bigquery_emulator.project:
        pytest.skip("the requests are read in front of the emulator")
    dataset = cloud_settings.bigquery_dataset
    cloud = BigQuery(cloud_settings)
    cloud.client.create_dataset(dataset)
    cloud.client.query(f"create table {dataset}.sig_any as select 1 as signal").result()
    assert [row.signal for row in cloud.analyst.query("select * from sig_any").result()] == [1]
    with faulty(bigquery_emulator) as wire:
        for name, value in wire.environment.items():
            monkeypatch.setenv(name, value)
        with engine(cloud_settings).connect() as connection:
            # The emulator takes a default dataset of jobs alone, and answers nothing.
            pd.read_sql_query("select * from sig_any", connection)
    (query,) = wire.queries
    assert query["defaultDataset"] == {"projectId": cloud.client.project, "datasetId": dataset}
    assert query["maximumBytesBilled"] == str(cloud_settings.bigquery_maximum_bytes)


def test_the_snapshot_is_not_locked_by_readers(tmp_path: Path) -> None:
    settings = Settings(database=tmp_path / "tapehouse.duckdb")
    with pytest.raises(warehouse.WarehouseMissingError, match="no snapshot at"):
        engine(settings)
    fill(settings)
    with engine(settings).connect() as connection, warehouse.writing(settings.database):
        assert connection.exec_driver_sql("select count(*) from raw.trades").scalar() == 20
