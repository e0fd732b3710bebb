"""Served features are those of the batch, to the last bit."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest
from serving_fixtures import SYMBOLS, built, ingested, market, start_of_last_day

from ingest import warehouse
from ingest.simulator import Market
from serving.manifest import compiled, lineage
from serving.online import OnlineFeatures
from serving.plan import CHANGED, plan

__all__ = ["built", "ingested", "market"]

NOT_FEATURES = {"is_up_5", "return_5", "label_end_at", "split", "fold"}
BARS = 8


@pytest.fixture(scope="module")
def online(built: Path) -> Iterator[OnlineFeatures]:
    selection = ["--select", "+ds_order_flow"]
    database = built / "tapehouse.duckdb"
    with ThreadPoolExecutor() as pool:
        full = pool.submit(compiled, database, selection)
        refresh = pool.submit(compiled, database, selection, changed_from=CHANGED)
    chains = [lineage(manifest.result(), "ds_order_flow") for manifest in (full, refresh)]
    with warehouse.reading(database) as connection:
        columns = connection.sql("from ds_order_flow limit 0").columns
    wanted = {"ds_order_flow": tuple(name for name in columns if name not in NOT_FEATURES)}
    features = OnlineFeatures(chains[0], plan(*chains, wanted, intervals=[5]))
    yield features
    features.close()


def test_bar_by_bar_features_equal_those_of_the_batch(
    online: OnlineFeatures, built: Path, market: Market
) -> None:
    start = start_of_last_day(market) + timedelta(hours=3)
    end = start + timedelta(minutes=5 * BARS)
    with warehouse.reading(built / "tapehouse.duckdb") as connection:
        columns = ", ".join(f'"{name}"' for name in online.plan.step("ds_order_flow").columns)
        batch = connection.sql(
            f"select {columns} from ds_order_flow where opened_at >= timestamp '{start}' "
            f"and opened_at < timestamp '{end}' order by all"
        ).to_arrow_table()
        raw = {
            source: connection.sql(
                f"select * from {source.relation} where {source.event_time} >= "
                f"timestamptz '{start - timedelta(minutes=minutes)}+00' "
                f"and {source.event_time} < timestamptz '{end}+00'"
            ).to_arrow_table()
            for source, (_, minutes) in online.plan.sources.items()
        }
    assert batch.num_rows == len(SYMBOLS) * BARS

    def between(first: datetime | None, last: datetime) -> dict[str, pa.Table]:
        found = {}
        for source, rows in raw.items():
            at = online._instants(source, rows)
            is_in = [(first is None or first <= v) and v < last for v in at.to_pylist()]
            found[source] = rows.filter(pa.array(is_in, pa.bool_()))
        return found

    online.start(
        {source.relation: rows for source, rows in between(None, start).items()}, now=start
    )
    served = []
    opened_at = start
    while opened_at < end:
        for minute in range(5):
            first = opened_at + timedelta(minutes=minute)
            for source, rows in between(first, first + timedelta(minutes=1)).items():
                online.add(source, rows)
            if minute < 4:
                online.advance(first + timedelta(minutes=1))
        closed_at = opened_at + timedelta(minutes=5)
        served.append(online.refresh(closed_at, opened_at)["ds_order_flow"])
        online.forget(closed_at)
        opened_at = closed_at
    rows = pa.concat_tables(served).sort_by(
        [(name, "ascending") for name in batch.column_names[:5]]
    )
    assert rows.num_rows == batch.num_rows
    differing = [
        name
        for name in batch.column_names
        if not rows[name].combine_chunks().equals(batch[name].combine_chunks())
    ]
    assert differing == []
    assert rows.equals(batch)
