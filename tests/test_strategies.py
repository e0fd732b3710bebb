"""Datasets are rows of a seed: built, split, added, removed and refused."""

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pytest
from dbt_fixtures import (
    NO_ACCOUNT,
    OFFLINE_BIGQUERY,
    WITHOUT_TESTS,
    dbt,
    run_dbt,
    share_compiled,
)
from features_fixtures import START, random_market, raw_books, raw_klines, raw_trades, write_raw

from serving.leaks import compiled_tables
from serving.manifest import lineage, part_datasets, strategies

ROOT = Path(__file__).resolve().parents[1]
MINUTES = 6_000
SCALE = {"price": 8, "quantity": 4}
# Buckets with fixed edges: the same market at another price falls into others.
BUCKETED = {"volume_profile_poc_96_rel", "large_trade_count_rel", "large_trade_ratio"}
WRONG = [
    (
        {"name": "Momentum"},
        "expected a name of lower-case letters, digits and _, at most 60, a letter first",
    ),
    (
        {"name": "a name"},
        "expected a name of lower-case letters, digits and _, at most 60, a letter first",
    ),
    ({"name": "order_flow"}, "ds_order_flow is already models/datasets/ds_order_flow.sql"),
    ({"name": "margin", "market": "margin"}, "market margin: expected spot or um"),
    (
        {"name": "lower", "symbols": "btcusdt"},
        "symbol btcusdt: expected it as the exchange writes it, such as BTCUSDT",
    ),
    (
        {"name": "nobody", "symbols": ""},
        "symbols '': expected each once, parted by spaces, or * alone for all",
    ),
    (
        {"name": "star", "symbols": "* BTCUSDT"},
        "symbols '* BTCUSDT': expected each once, parted by spaces, or * alone for all",
    ),
    (
        {"name": "again", "symbols": "BTCUSDT BTCUSDT"},
        "symbols 'BTCUSDT BTCUSDT': expected each once, parted by spaces, or * alone for all",
    ),
    (
        {"name": "seven", "interval_minutes": "7"},
        "interval_minutes 7: expected one of the variable interval_minutes: 1, 5, 15, 60",
    ),
    (
        {"name": "words", "interval_minutes": "five"},
        "interval_minutes five: expected one of the variable interval_minutes: 1, 5, 15, 60",
    ),
    (
        {"name": "wide", "features": "alpha158"},
        "interval_minutes 5: expected one of the variable alpha158_interval_minutes: 15, 60",
    ),
    (
        {"name": "family", "features": "ta technical"},
        "family technical: expected one of alpha158, calendar, cross_asset, derivatives, ",
    ),
    (
        {"name": "column", "features": "ta.close_sma_4_rel"},
        "feature ta.close_sma_4_rel: expected columns of feat_ta, such as close_sma_3_rel, ",
    ),
    (
        {"name": "nothing", "features": ""},
        "features: expected families or columns, such as `ta orderflow.quoted_spread_bps`",
    ),
    (
        {"name": "label", "label": "high_030_5"},
        "label high_030_5: expected one of agree_5_10_20_40, class5_10, ",
    ),
    (
        {"name": "threshold", "label": "adaptive_target"},
        "label adaptive_target: expected one of agree_5_10_20_40, class5_10, ",
    ),
]
TWICE = ({}, "the name is there twice")


def row(**changes: str) -> dict[str, str]:
    fine = {"name": "fine", "market": "um", "symbols": "BTCUSDT", "interval_minutes": "5"}
    return fine | {"features": "ta", "label": "is_up_5"} | changes


def five_symbols() -> dict[str, pd.DataFrame]:
    """A random market; XRPUSDT is BTCUSDT at 8 times the price and 4 times the quantity."""
    market = random_market(minutes=MINUTES)
    for name, frame in market.items():
        own = frame[frame.symbol == "BTCUSDT"].assign(symbol="XRPUSDT")
        for column in own.columns:
            if column in {"open", "high", "low", "close", "price", "bid_prices", "ask_prices"}:
                own[column] = own[column] * SCALE["price"]
            elif column in {"quote_volume", "quote_quantity"}:
                own[column] = own[column] * SCALE["price"] * SCALE["quantity"]
            elif "volume" in column or column.endswith(("quantity", "quantities")):
                own[column] = own[column] * SCALE["quantity"]
        make = {"klines": raw_klines, "trades": raw_trades, "books": raw_books}[name]
        others = [
            make("SOLUSDT", minutes=MINUTES, seed=2),
            make("BNBUSDT", minutes=MINUTES, seed=3),
        ]
        market[name] = pd.concat([frame, own, *others], ignore_index=True)
    keys = pd.DataFrame({"exchange": "binance", "market": "um", "symbol": ["BTCUSDT", "XRPUSDT"]})
    times = {"funding_time": pd.date_range(START.floor("8h"), periods=15, freq="8h")}
    market["funding"] = keys.merge(pd.DataFrame(times), how="cross").assign(funding_rate=1e-4)
    times = {"create_time": pd.date_range(START, periods=MINUTES // 5, freq="5min")}
    readings = keys.merge(pd.DataFrame(times), how="cross")
    sizes = 1000 + np.arange(len(readings)) % (MINUTES // 5)
    readings["sum_open_interest"] = sizes * np.where(readings.symbol == "XRPUSDT", 4, 1)
    for name in ("funding", "open_interest"):
        frame = readings if name == "open_interest" else market[name]
        market[name] = frame.assign(source="archive", received_at=START + pd.Timedelta(days=30))
    return market


def copied(directory: Path, rows: list[dict[str, str]]) -> Path:
    """A copy of the project with other strategies, and a model that reads one of them."""
    project = directory / "dbt_project"
    ignored = shutil.ignore_patterns("target", "logs")
    shutil.copytree(ROOT / "dbt_project", project, ignore=ignored)
    with (project / "seeds" / "strategies.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    reader = project / "models" / "signals" / "sig_count.sql"
    reader.write_text("select count(*) as row_count from {{ dataset('adaptive') }}\n")
    return project


def table(database: Path, query: str) -> pd.DataFrame:
    with duckdb.connect(database, read_only=True) as connection:
        return connection.execute(query).df()


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A warehouse with the datasets of the shipped strategies."""
    database = tmp_path_factory.mktemp("strategies") / "tapehouse.duckdb"
    write_raw(database, five_symbols())
    selection = ("--select", "+ds_strategies", "+ds_order_flow")
    few = {"adaptive_median_bars": 100}
    done = dbt(database, "build", *selection, *WITHOUT_TESTS, "--vars", json.dumps(few))
    assert done.returncode == 0, done.stdout
    return database


@pytest.fixture(scope="module")
def refused(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What dbt says of many wrong rows, read without a warehouse."""
    database = tmp_path_factory.mktemp("refused") / "tapehouse.duckdb"
    rows = [row(), row(), *(row(**changes) for changes, _ in WRONG)]
    offline = ("--no-introspect", "--no-populate-cache", "--select", "ds_strategies")
    variables = json.dumps({"strategies": rows})
    done = dbt(database, "compile", *offline, "--vars", variables)
    assert done.returncode != 0, done.stdout
    return done.stdout


def test_each_shipped_strategy_has_its_symbols_interval_features_and_label(built: Path) -> None:
    summary = table(built, "from ds_strategies order by name").set_index("name")
    shipped = {each["name"]: each for each in strategies()}
    assert list(summary.index) == sorted(shipped)
    for name, strategy in shipped.items():
        rows = table(built, f"from ds_{name}")
        keys = ["exchange", "market", "symbol", "interval_minutes", "opened_at"]
        assert len(rows) > 300, name
        assert not rows.duplicated(keys).any()
        assert set(rows.interval_minutes) == {int(strategy["interval_minutes"])}
        symbols = strategy["symbols"].split()
        everything = {"BTCUSDT", "ETHUSDT", "SOLUSDT", "BNBUSDT", "XRPUSDT"}
        assert set(rows.symbol) == (everything if symbols == ["*"] else set(symbols))
        features = summary.features[name].split()
        label = strategy["label"]
        columns = [*keys, "closed_at", "available_at", *features, label]
        horizon = label.rsplit("_", 1)[1]
        outcome = [f"return_{horizon}"] if horizon in {"5", "10", "20", "40"} else []
        outcome = [] if outcome == [label] else outcome
        assert list(rows) == [*columns, *outcome, "label_end_at", "split", "fold"]
        assert {str(kind) for kind in rows[features].dtypes} == {"float32"}
        found = summary.loc[name]
        assert found.feature_count == len(features)
        assert found.row_count == len(rows)
        assert found.labelled_row_count == rows[label].notna().sum() > 100
        assert found.first_opened_at == rows.opened_at.min()
        assert found.last_opened_at == rows.opened_at.max()
        assert set(rows.split.dropna()) == {"train", "validation", "test"}


def test_a_dataset_has_a_row_for_every_reported_bar(built: Path) -> None:
    for name in ("regression", "triple_barrier", "trend"):
        counts = table(
            built,
            f"select (select count(*) from ds_{name}) as own, count(*) as bars from int_bars "
            "where not is_gap and (interval_minutes, symbol) in "
            f"(select (interval_minutes, symbol) from ds_{name})",
        )
        assert counts.own[0] == counts.bars[0] > 0


def test_values_are_those_of_the_families_and_label_tables(built: Path) -> None:
    differences = table(
        built,
        """
        select count(*) as row_count, count(spread) as known
        from ds_scalping as own
        inner join feat_ta as ta using (exchange, market, symbol, interval_minutes, opened_at)
        inner join (select * rename (quoted_spread_bps as spread) from feat_orderflow) as book
            using (exchange, market, symbol, interval_minutes, opened_at)
        inner join lbl_high_low as label
            using (exchange, market, symbol, interval_minutes, opened_at)
        where own.vol_regime is not distinct from cast(ta.vol_regime as float)
            and own.quoted_spread_bps is not distinct from cast(spread as float)
            and own.high_015_2 is not distinct from label.high_015_2
            and own.label_end_at is not distinct from label.high_low_2_end_at
            and own.available_at = greatest(ta.available_at, book.available_at)
        """,
    )
    assert differences.row_count[0] == table(built, "from ds_scalping").shape[0]
    assert differences.known[0] > 1_000


def test_parts_follow_each_other_and_no_label_reaches_into_the_next(built: Path) -> None:
    summary = table(built, "from ds_strategies").set_index("name")
    for name, found in summary.iterrows():
        rows = table(built, f"from ds_{name} where split is not null")
        embargo = pd.Timedelta(minutes=12 * int(found.interval_minutes))
        parts = dict(list(rows.groupby("split")))
        assert parts["train"].closed_at.max() < found.train_end_at
        assert parts["train"].label_end_at.max() <= found.train_end_at - embargo
        assert parts["validation"].closed_at.min() >= found.train_end_at
        assert parts["validation"].label_end_at.max() <= found.validation_end_at - embargo
        assert parts["test"].closed_at.min() >= found.validation_end_at
        assert parts["train"].fold.isna().all()
        assert set(parts["test"].fold) <= {1, 2, 3, 4, 5}


def test_a_family_alone_gives_no_column_with_the_unit_of_a_price_or_a_quantity(
    built: Path,
) -> None:
    summary = table(built, "from ds_strategies").set_index("name")
    seen = set()
    for name in ("regression", "triple_barrier", "five_classes"):
        features = [name for name in summary.features[name].split() if name not in BUCKETED]
        rows = table(built, f"from ds_{name} order by symbol, opened_at")
        small, large = (
            rows[rows.symbol == symbol][features].to_numpy(dtype=float)
            for symbol in ("BTCUSDT", "XRPUSDT")
        )
        wrong = [
            feature
            for position, feature in enumerate(features)
            if not np.allclose(
                small[:, position], large[:, position], rtol=1e-4, atol=1e-6, equal_nan=True
            )
        ]
        assert wrong == []
        seen |= {feature for feature in features if rows[feature].notna().any()}
    assert {"close_rsi_14", "depth_ratio", "oi_change_pct", "beta_60", "hurst_256"} <= seen


def test_rows_added_and_removed_make_and_drop_tables_and_nothing_else(
    built: Path, tmp_path: Path
) -> None:
    database = tmp_path / "tapehouse.duckdb"
    shutil.copy(built, database)
    with duckdb.connect(database) as connection:
        connection.execute("create table ds_mine as select 1 as value")
    kept = [each for each in strategies() if each["name"] in {"adaptive", "momentum"}]
    added = row(
        name="spreads",
        symbols="BTCUSDT DOGEUSDT",
        interval_minutes="60",
        features="ta.close_sma_3 ta.close_roc_* calendar.is_weekend ta.close_roc_1",
        label="direction_5",
    )
    absent = row(name="absent", symbols="DOGEUSDT")
    project = copied(tmp_path, [*kept, added, absent])
    selection = ("--select", "strategies", "ds_strategies", "sig_count")
    done = dbt(database, "build", *selection, *WITHOUT_TESTS, project=project)
    assert done.returncode == 0, done.stdout
    names = ["absent", "adaptive", "momentum", "spreads"]
    assert list(table(database, "from ds_strategies order by name")["name"]) == names
    tables = table(database, "select table_name from duckdb_tables() where table_name like 'ds_%'")
    mine = {"ds_mine", "ds_order_flow", "ds_strategies", *(f"ds_{name}" for name in names)}
    assert set(tables.table_name) == mine
    rows = table(database, "from ds_spreads order by opened_at")
    rates = [f"close_roc_{bars}" for bars in (1, 5, 10, 20)]
    features = ["close_sma_3", *rates, "is_weekend"]
    assert list(rows)[7:-3] == [*features, "direction_5", "return_5"]
    assert set(rows.is_weekend) == {0.0, 1.0}
    assert rows.direction_5.dropna().tolist() == np.sign(rows.return_5.dropna()).tolist()
    summary = table(database, "from ds_strategies where name = 'absent'")
    assert (summary.row_count[0], summary.labelled_row_count[0]) == (0, 0)
    assert summary[["first_opened_at", "train_end_at"]].isna().all(axis=None)
    assert list(table(database, "from ds_absent"))[-3:] == ["label_end_at", "split", "fold"]
    count = table(
        database, "select (select count(*) from ds_adaptive) as own, row_count from sig_count"
    )
    assert count.own[0] == count.row_count[0] > 0
    manifest = json.loads((tmp_path / "target" / "manifest.json").read_text())
    reader = manifest["nodes"]["model.tapehouse.sig_count"]
    assert reader["depends_on"]["nodes"] == ["model.tapehouse.ds_strategies"]

    taken = copied(tmp_path / "second", [*kept[1:], row(name="mine")])
    done = dbt(database, "build", *selection, *WITHOUT_TESTS, project=taken)
    assert done.returncode == 1
    assert '"ds_mine" was not made by ds_strategies: drop it' in done.stdout
    assert list(table(database, "from ds_strategies order by name")["name"]) == names
    assert set(tables.table_name) <= set(table(database, "show tables").name)


@pytest.mark.parametrize(("changes", "message"), [*WRONG, TWICE])
def test_a_wrong_row_is_refused_with_what_is_allowed(
    refused: str, changes: dict[str, str], message: str
) -> None:
    assert f"row {row(**changes)['name']}: {message}" in refused


def test_only_what_is_wrong_is_refused(refused: str) -> None:
    said = [line.strip() for line in refused.splitlines() if line.strip().startswith("row ")]
    assert len(said) == len(WRONG) + 1


def test_the_strategies_render_for_bigquery_without_an_account(tmp_path: Path) -> None:
    database = tmp_path / "tapehouse.duckdb"
    variables = json.dumps({"strategies": strategies()})
    selection = ("--select", "ds_strategies", "--vars", variables)
    run_dbt(database, "compile", *OFFLINE_BIGQUERY, *selection, **NO_ACCOUNT)
    manifest = json.loads((tmp_path / "target" / "manifest.json").read_text())
    code = manifest["nodes"]["model.tapehouse.ds_strategies"]["compiled_code"]
    assert code.count(" as dataset_sql") == len(strategies())
    assert "cast(cast(is_weekend as integer) as float64) as is_weekend" in code
    assert "to_minutes" not in code


def test_each_dataset_is_a_node_of_the_compiled_manifest_with_its_own_ancestors(
    tmp_path: Path,
) -> None:
    share_compiled(tmp_path)
    manifest = compiled_tables(tmp_path / "tapehouse.duckdb")
    ancestors = {part.name for part in lineage(manifest, "ds_scalping").models}
    assert {"feat_ta", "feat_orderflow", "lbl_high_low", "ds_scalping"} <= ancestors
    assert not ancestors & {"feat_stats", "feat_microstructure", "lbl_return", "ds_strategies"}


def test_the_model_of_the_strategies_reads_every_family_and_every_table_of_labels(
    manifest: dict[str, Any],
) -> None:
    read = set(manifest["nodes"]["model.tapehouse.ds_strategies"]["depends_on"]["nodes"])
    tables = {
        key
        for key, node in manifest["nodes"].items()
        if node["resource_type"] == "model" and node["fqn"][1] in {"features", "labels"}
    }
    assert tables <= read


def test_a_model_on_the_dataset_of_a_strategy_has_that_dataset_as_its_parent() -> None:
    sql = (
        'select \'scalping\' as name, \'select * from "w"."main"."int_bars"\' as dataset_sql '
        "union all select 'trend', 'select 1'"
    )
    built_by = {"name": "ds_strategies", "relation_name": '"w"."main"."ds_strategies"'}
    nodes = {
        "model.t.int_bars": {"relation_name": '"w"."main"."int_bars"', "depends_on": {"nodes": []}},
        "model.t.ds_strategies": built_by | {"fqn": ["t", "datasets", "x"], "compiled_code": sql},
        "model.t.ml_scalping": {
            "relation_name": '"w"."main"."ml_scalping"',
            "raw_code": "select * from {{ dataset( 'scalping' ) }}",
            "depends_on": {"nodes": ["model.t.ds_strategies"]},
        },
    }
    part_datasets({"nodes": nodes})
    assert nodes["model.t.ml_scalping"]["depends_on"] == {"nodes": ["model.t.ds_scalping"]}
    assert nodes["model.t.ds_scalping"]["depends_on"] == {"nodes": ["model.t.int_bars"]}
    assert nodes["model.t.ds_trend"]["relation_name"] == '"w"."main"."ds_trend"'
    assert "model.t.ds_strategies" not in nodes
