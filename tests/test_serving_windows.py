"""Each raw table gives serving as much of the past as its features need, and no more."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from dbt_fixtures import share_compiled
from features_fixtures import START, SYMBOLS, built, raw_books, raw_klines, raw_trades

from ingest import warehouse
from serving.leaks import compiled_tables
from serving.manifest import Lineage, lineage, together
from serving.window import evaluated, raw_rows

DAYS = 33
#: The last whole day; no row of the next one is there.
DAY = (START + pd.Timedelta(days=DAYS)).floor("D").tz_localize(None).to_pydatetime() - timedelta(1)
#: Depends on all of the past.
UNBOUNDED = {"feat_ta": "exclude (close_volume_obv)"}


def slow_series(generator: np.random.Generator) -> dict[str, pd.DataFrame]:
    """Fundings, open interest, marks, forced orders and GARCH fits of two symbols."""
    keys = pd.DataFrame({"exchange": "binance", "market": "um", "symbol": SYMBOLS}).assign(
        source="archive", received_at=START + pd.Timedelta(days=90)
    )

    def every(column: str, period: str, **values: Any) -> pd.DataFrame:
        at = pd.date_range(START.floor("8h"), periods=DAYS * 1440, freq="min")
        at = at[:: int(pd.Timedelta(period) / pd.Timedelta("1min"))]
        rows = keys.merge(pd.DataFrame({column: at}), how="cross")
        return rows.assign(
            **{
                name: generator.uniform(*value, len(rows)) if isinstance(value, tuple) else value
                for name, value in values.items()
            }
        )

    return {
        "funding": every("funding_time", "8h", funding_rate=(-1e-4, 1e-4)),
        "open_interest": every("create_time", "5min", sum_open_interest=(10, 20)),
        "mark_prices": every("event_time", "1min", mark_price=(99, 101), index_price=(99, 101)),
        "liquidations": every(
            "trade_time", "7min", side="SELL", price=(99, 101), original_quantity=(1, 2)
        ),
        "garch_parameters": every(
            "fitted_until", "3D", interval_minutes=1, omega=1e-8, alpha=0.1, beta=0.8
        ).assign(known_at=lambda rows: rows.fitted_until),
    }


@pytest.fixture(scope="module")
def batch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A warehouse of klines of 33 days, trades of the last ten and books of the last four."""
    tables = slow_series(np.random.default_rng(1))
    makers = {"klines": raw_klines, "trades": raw_trades, "books": raw_books}
    times = {"klines": "open_time", "trades": "transact_time", "books": "transact_time"}
    days = {"klines": DAYS, "trades": 10, "books": 4}
    for name, make in makers.items():
        frames = [
            make(symbol, minutes=days[name] * 1440, seed=seed)
            for seed, symbol in enumerate(SYMBOLS)
        ]
        tables[name] = pd.concat(frames, ignore_index=True)
        tables[name][times[name]] += pd.Timedelta(days=DAYS - days[name])
    end = pd.Timestamp(DAY, tz="UTC") + pd.Timedelta(days=1)
    tables = {
        name: frame[(frame[times[name]] < end) if name in times else slice(None)]
        for name, frame in tables.items()
    }
    working = tmp_path_factory.mktemp("windows")
    return built("tapehouse", tables, select="+path:models/features", working=working)


@pytest.fixture(scope="module")
def chains(batch: Path) -> dict[str, Lineage]:
    share_compiled(batch.parent)
    manifest = compiled_tables(batch)
    names = [
        node["name"]
        for node in manifest["nodes"].values()
        if node["resource_type"] == "model" and node["name"].startswith("feat_")
    ]
    return {name: lineage(manifest, name) for name in names}


@pytest.mark.parametrize("interval_minutes", [1, 5])
def test_served_features_equal_those_of_the_batch_to_the_last_bit(
    batch: Path, chains: dict[str, Lineage], interval_minutes: int
) -> None:
    chain = together(chains.values())
    queries = {
        name: f"select * {UNBOUNDED.get(name, '')} from main.{name} "
        f"where opened_at >= timestamp '{DAY}' and interval_minutes = {interval_minutes} "
        "order by all"
        for name in chains
    }
    window = {"start": DAY, "end": DAY + timedelta(days=1)}
    with warehouse.reading(batch) as connection:
        expected = {name: connection.sql(query).df() for name, query in queries.items()}
        raw = raw_rows(connection, chain, **window, interval_minutes=interval_minutes)
        ((landed,),) = connection.sql("select count(*) from raw.trades").fetchall()
    (served_trades,) = (rows.num_rows for name, rows in raw.items() if '"trades"' in name)
    assert 0 < served_trades < landed * 0.8
    with evaluated(chain, raw) as memory:
        memory.execute(f'use "{chain.database}"')
        for name, query in queries.items():
            assert len(expected[name]) == (
                0 if name == "feat_alpha158" else 2880 // interval_minutes
            )
            served = memory.sql(query).df()[list(expected[name].columns)]
            pd.testing.assert_frame_equal(served, expected[name], check_exact=True, obj=name)
    known = {name: frame.notna().any() for name, frame in expected.items()}
    assert known["feat_calendar"].all()
    assert known["feat_microstructure"].all()


def test_a_source_reaches_back_as_far_as_its_slowest_path(chains: dict[str, Lineage]) -> None:
    def days(name: str, interval_minutes: int) -> dict[str, float]:
        minutes = chains[name].lookbacks(interval_minutes)
        return {relation.split('"')[-2]: value / 1440 for relation, value in minutes.items()}

    assert days("feat_orderflow", 5)["books"] < 1
    assert days("feat_microstructure", 5)["trades"] < 5
    assert days("feat_derivatives", 5)["open_interest"] < 1
    assert 29 < days("feat_derivatives", 5)["funding"] < 32
    assert days("feat_stats", 5)["garch_parameters"] > 90
    assert 28 < days("feat_calendar", 60)["klines"] < 29
    assert days("feat_ta", 60)["klines"] > 2016 / 24
