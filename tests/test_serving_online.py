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
from serving.kept import microseconds
from serving.manifest import compiled, lineage, together
from serving.online import OnlineFeatures
from serving.plan import CHANGED, plan

__all__ = ["built", "ingested", "market"]

NOT_FEATURES = {"is_up_5", "return_5", "label_end_at", "split", "fold"}
BARS = 8


ASKED = ("ds_order_flow", "feat_ta")
KEYS = ("exchange", "market", "symbol", "interval_minutes", "opened_at")
SINCE_MIDNIGHT = ("vwap_session", "vwap_session_rel")


@pytest.fixture(scope="module")
def online(built: Path) -> Iterator[OnlineFeatures]:
    selection = ["--select", *(f"+{name}" for name in ASKED)]
    database = built / "tapehouse.duckdb"
    with ThreadPoolExecutor() as pool:
        full = pool.submit(compiled, database, selection)
        refresh = pool.submit(compiled, database, selection, changed_from=CHANGED)
    chains = [
        together(lineage(manifest.result(), name) for name in ASKED) for manifest in (full, refresh)
    ]
    with warehouse.reading(database) as connection:
        columns = connection.sql("from ds_order_flow limit 0").columns
    wanted = {
        "ds_order_flow": tuple(name for name in columns if name not in NOT_FEATURES),
        "feat_ta": (*KEYS, *SINCE_MIDNIGHT),
    }
    features = OnlineFeatures(chains[0], plan(*chains, wanted, intervals=[5]))
    yield features
    features.close()


def test_bar_by_bar_features_equal_those_of_the_batch(
    online: OnlineFeatures, built: Path, market: Market
) -> None:
    start = start_of_last_day(market) + timedelta(hours=3)
    end = start + timedelta(minutes=5 * BARS)
    with warehouse.reading(built / "tapehouse.duckdb") as connection:
        batch = {
            name: connection.sql(
                f"select {', '.join(online.plan.step(name).columns)} from {name} "
                f"where opened_at >= timestamp '{start}' and opened_at < timestamp '{end}' "
                f"and interval_minutes = 5 order by {', '.join(KEYS)}"
            ).to_arrow_table()
            for name in ASKED
        }
        raw = {
            source: connection.sql(
                f"select * from {source.relation} where {source.event_time} >= "
                f"timestamptz '{start - timedelta(minutes=minutes)}+00' "
                f"and {source.event_time} < timestamptz '{end}+00'"
            ).to_arrow_table()
            for source, (_, minutes) in online.plan.sources.items()
        }
    assert {name: len(rows) for name, rows in batch.items()} == dict.fromkeys(
        ASKED, len(SYMBOLS) * BARS
    )
    assert not any(batch["feat_ta"][name].null_count for name in SINCE_MIDNIGHT)

    def between(first: datetime | None, last: datetime) -> dict[str, pa.Table]:
        found = {}
        for source, rows in raw.items():
            at = online._instants(source, rows)
            is_in = (at >= (microseconds(first) if first else 0)) & (at < microseconds(last))
            found[source] = rows.filter(pa.array(is_in))
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
        served.append(online.refresh(closed_at, opened_at))
        online.forget(closed_at)
        opened_at = closed_at
    for model, expected in batch.items():
        rows = pa.concat_tables(results[model] for results in served).sort_by(
            [(name, "ascending") for name in KEYS]
        )
        assert rows.num_rows == expected.num_rows
        differing = [
            name
            for name in expected.column_names
            if not rows[name].combine_chunks().equals(expected[name].combine_chunks())
        ]
        assert (model, differing) == (model, [])
        assert rows.equals(expected)
