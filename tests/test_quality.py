"""The quality of features against pandas, SciPy and scikit-learn."""

import json
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pytest
import yaml
from dbt_fixtures import run_dbt
from scipy.stats import spearmanr
from sklearn.metrics import mutual_info_score

ROOT = Path(__file__).resolve().parents[1]
START = pd.Timestamp("2025-01-01")
BARS = 2_500
FEATURES = [
    *("close_roc_1", "close_roc_5", "close_roc_10", "close_roc_20", "spread_pct_3", "spread_pct_6"),
    *("spread_pct_12", "stoch_k_14_3", "stoch_d_3", "close_willr_14", "close_rsi_14"),
]
DATASETS = {
    "ds_order_flow": "is_up_5",
    "ds_classes": "class5_5",
    "ds_numbers": "return_5",
    "ds_empty": "is_up_5",
}
MODELS = {"ds_order_flow": "ml_order_flow", "ds_classes": "ml_order_flow_linear"}
CLASSES = ["strong_down", "down", "flat", "up", "strong_up"]


def features_of(name: str) -> list[str]:
    if name != "ds_order_flow":
        return FEATURES
    described = yaml.safe_load((ROOT / "dbt_project/models/datasets/ds_order_flow.yml").read_text())
    columns = described["models"][0]["columns"]
    return [column["name"] for column in columns if column["data_type"] == "float"]


def synthetic(name: str, *, seed: int) -> pd.DataFrame:
    """A dataset of two symbols; features with ties, nulls, drift, an end, a twin, a constant."""
    generator = np.random.default_rng(seed)
    rows = pd.DataFrame({"symbol": np.repeat(["BTCUSDT", "ETHUSDT"], BARS)})
    bar = np.tile(np.arange(BARS), 2)
    rows["opened_at"] = START + pd.to_timedelta(5 * bar, unit="min")
    rows["closed_at"] = rows.opened_at + pd.Timedelta(minutes=5)
    rows = rows.assign(exchange="binance", market="um", interval_minutes=5)
    outcome = generator.normal(0, 1e-3, len(rows))
    values = {feature: generator.normal(size=len(rows)) for feature in features_of(name)}
    values["close_roc_1"] = outcome * 300 + generator.normal(size=len(rows))
    values["close_roc_5"] = generator.integers(0, 4, len(rows)).astype(float)
    values["close_roc_10"] += np.where(bar > BARS * 0.8, 1.0, 0.0)
    values["close_roc_20"] = np.where(generator.random(len(rows)) < 0.3, np.nan, outcome**2 * 1e6)
    values["spread_pct_3"] = 2 * values["spread_pct_6"] + generator.normal(0, 0.1, len(rows))
    values["spread_pct_12"] = np.ones(len(rows))
    values["stoch_k_14_3"] = np.full(len(rows), np.nan)
    values["stoch_d_3"][bar < 500] = np.nan
    values["close_willr_14"][(bar >= BARS - 40) & (rows.symbol == "ETHUSDT")] = np.nan
    for feature, column in values.items():
        rows[feature] = column.astype(np.float32)
    rows["return_5"] = outcome
    rows.loc[bar >= BARS - 5, "return_5"] = np.nan
    bins = [-np.inf, -2e-3, -5e-4, 5e-4, 2e-3, np.inf]
    rows["class5_5"] = pd.cut(rows.return_5, bins, labels=CLASSES).astype(object)
    rows["is_up_5"] = (rows.return_5 > 0).astype("boolean").mask(rows.return_5.isna())
    parts = pd.cut(bar, [-1, BARS * 0.6, BARS * 0.8, BARS], labels=["train", "validation", "test"])
    rows["split"] = pd.Series(parts).astype(object).where(rows.return_5.notna(), None)
    return rows.iloc[:0] if name == "ds_empty" else rows


@pytest.fixture(scope="module")
def datasets() -> dict[str, pd.DataFrame]:
    return {name: synthetic(name, seed=seed) for seed, name in enumerate(DATASETS)}


def run(database: Path, **variables: object) -> None:
    rows = [
        {
            "name": name.removeprefix("ds_"),
            "market": "um",
            "symbols": "*",
            "interval_minutes": 5,
            "features": " ".join(f"ta.{feature}" for feature in FEATURES),
            "label": label,
        }
        for name, label in DATASETS.items()
        if name != "ds_order_flow"
    ]
    for command in ("build", "compile"):
        run_dbt(
            *(database, command, "--select", "path:models/quality", "feature_quality"),
            *("--vars", json.dumps({"strategies": rows, "importance_models": MODELS, **variables})),
        )


@pytest.fixture(scope="module")
def database(datasets: dict[str, pd.DataFrame], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("quality") / "tapehouse.duckdb"
    with duckdb.connect(path) as connection:
        for name, rows in datasets.items():
            connection.register("landed", rows)
            connection.execute(f"create table {name} as select * from landed")
        connection.execute("create table ds_strategies as select 1 as unread")
        connection.execute("create view ml_order_flow as select 'one' as model_version")
        connection.execute("create view ml_order_flow_linear as select 'two' as model_version")
        connection.execute((ROOT / "ml" / "registry.sql").read_text())
        connection.execute(
            """
            insert into registry.feature_importance
            select 'ml_order_flow', version, feature, weight, gain, 1
            from (values
                ('one', 'close_roc_1', 30, 2.0), ('one', 'close_roc_5', 20, 2.0),
                ('old', 'close_roc_1', 1, 1.0)
            ) as learned (version, feature, weight, gain)
            """
        )
    run(path, feature_quality_pair_rows=100_000, feature_quality_recent_days=3)
    return path


def quality(database: Path) -> pd.DataFrame:
    with duckdb.connect(database, read_only=True) as connection:
        return connection.execute("from qlt_features").df().set_index(["dataset", "feature"])


def as_numbers(rows: pd.DataFrame, name: str) -> pd.Series:
    label = rows[DATASETS[name]]
    if name == "ds_classes":
        return label.map({word: float(number) for number, word in enumerate(CLASSES)})
    return label.astype("Float64").astype(float)


def bins(values: pd.Series) -> pd.Series:
    return (10 * (values.rank(method="min") - 1) / len(values)).floordiv(1).astype(int)


def psi(train: pd.Series, recent: pd.Series) -> float:
    train, recent = train.dropna(), recent.dropna()
    if train.empty or recent.empty:
        return np.nan
    edges = [train[bins(train) >= place].min() for place in range(1, 10)]
    edges = [np.inf if np.isnan(edge) else edge for edge in edges]

    def shares(values: pd.Series) -> np.ndarray:
        places = np.searchsorted(edges, values, side="right")
        return np.array([max(1e-4, (places == place).mean()) for place in range(10)])

    change, before = shares(recent), shares(train)
    present = (change > 1e-4) | (before > 1e-4)
    return float(((change - before) * np.log(change / before))[present].sum())


def oracle(rows: pd.DataFrame, name: str) -> dict[str, dict[str, Any]]:
    train = rows[rows.split == "train"]
    later = rows.closed_at > rows.closed_at.max() - pd.Timedelta(days=3)
    recent = rows[later & (rows.split != "train")]
    numbers = as_numbers(train, name)
    related = train[features_of(name)].astype(float).corr()
    found = {}
    for feature in features_of(name):
        known = train[feature].notna()
        value, label = train.loc[known, feature].astype(float), numbers[known]
        others = related[feature].drop(feature).dropna()
        ends = rows[rows[feature].notna()].groupby("symbol").closed_at.agg(["min", "max"])
        whole = rows.groupby("symbol").closed_at.agg(["min", "max"])
        seen = (ends["max"] - ends["min"]).sum() / (whole["max"] - whole["min"]).sum()
        stale = (whole["max"] - ends["max"]).max() / pd.Timedelta(minutes=1)
        classes = bins(label) if name == "ds_numbers" else label.astype(int)
        varies = value.nunique() > 1
        found[feature] = {
            "row_count": len(rows),
            "known_row_count": rows[feature].notna().sum(),
            "null_share": rows[feature].isna().mean(),
            "coverage": seen if len(ends) else np.nan,
            "staleness_minutes": stale if len(ends) else np.nan,
            "train_row_count": len(value) or np.nan,
            "recent_row_count": recent[feature].notna().sum() if len(value) else np.nan,
            "psi": psi(train[feature], recent[feature]),
            "correlation": np.corrcoef(value, label)[0, 1] if varies else np.nan,
            "rank_correlation": spearmanr(value, label)[0] if varies else np.nan,
            "mutual_information": mutual_info_score(classes, bins(value)) if len(value) else np.nan,
            "collinearity": others[others.abs().idxmax()] if len(others) else np.nan,
        }
    return found


@pytest.mark.parametrize("name", ["ds_order_flow", "ds_classes", "ds_numbers"])
def test_every_figure_equals_that_of_the_libraries(
    database: Path, datasets: dict[str, pd.DataFrame], name: str
) -> None:
    expected = pd.DataFrame(oracle(datasets[name], name)).T.sort_index().astype(float)
    found = quality(database).loc[name].sort_index()
    assert list(found.index) == list(expected.index)
    for column in expected:
        np.testing.assert_allclose(
            found[column].astype(float), expected[column], rtol=1e-9, atol=1e-12, err_msg=column
        )


def test_a_feature_that_tells_drifts_repeats_or_ends_is_seen_as_such(database: Path) -> None:
    rows = quality(database).loc["ds_order_flow"]
    assert rows.mutual_information.idxmax() == "close_roc_1"
    assert rows.mutual_information["close_roc_1"] > 5 * rows.mutual_information_of_chance.max()
    others = rows.drop(["close_roc_1", "close_roc_20"])
    assert others.mutual_information.mean() < 2 * others.mutual_information_of_chance.mean()
    assert rows.psi.idxmax() == "close_roc_10"
    assert rows.collinear_feature["spread_pct_3"] == "spread_pct_6"
    assert rows.collinear_feature["spread_pct_6"] == "spread_pct_3"
    assert rows.staleness_minutes["close_willr_14"] == 200
    assert rows.coverage["stoch_d_3"] == pytest.approx(1999 / 2499)
    assert rows.importance.dropna().to_dict() == {"close_roc_1": 0.6, "close_roc_5": 0.4}


def test_where_there_is_no_importance_the_reason_is_told(database: Path) -> None:
    rows = quality(database)
    known = rows.importance.notna()
    assert rows.importance_reason[known].isna().tolist() == [True, True]
    reasons = rows.importance_reason[~known].groupby(level="dataset").unique()
    assert {name: list(words) for name, words in reasons.items()} == {
        "ds_order_flow": ["its model does not split on it"],
        "ds_classes": ["its model has no trees"],
        "ds_numbers": ["the variable importance_models names no model of the dataset"],
    }


def test_a_dataset_without_rows_has_no_features_to_tell_of(database: Path) -> None:
    assert set(quality(database).index.get_level_values("dataset")) == set(DATASETS) - {"ds_empty"}


def test_the_analysis_ranks_the_features_and_names_what_speaks_against_them(
    database: Path,
) -> None:
    compiled = database.parent / "target/compiled/tapehouse/analyses/feature_quality.sql"
    with duckdb.connect(database, read_only=True) as connection:
        rows = connection.execute(compiled.read_text()).df()
    own = rows[rows.dataset == "ds_order_flow"].set_index("feature")
    assert own.index[0] == "close_roc_1"
    assert own["place"].tolist() == list(range(1, len(own) + 1))
    flags = {
        "close_roc_1": "",
        "close_roc_10": "drift, psi above 0.25; ",
        "close_roc_20": "nulls above 20 %; ",
        "spread_pct_12": "constant or never known; tells no more than chance; ",
        "stoch_k_14_3": "nulls above 20 %; constant or never known; ",
        "close_willr_14": "no value for an hour; ",
    }
    for feature, words in flags.items():
        assert set(words.split("; ")) <= {*own["flags"][feature].split("; ")}
    assert own["flags"]["close_roc_1"] == ""
    assert "the same as spread_pct_6, |r| above 0.95" in own["flags"]["spread_pct_3"]


def test_parts_are_sampled_to_the_stated_number_of_rows(
    database: Path, datasets: dict[str, pd.DataFrame], tmp_path: Path
) -> None:
    copy = tmp_path / "tapehouse.duckdb"
    copy.write_bytes(database.read_bytes())
    run(copy, feature_quality_rows=1_000, feature_quality_pair_rows=500)
    whole, sampled = quality(database), quality(copy)
    assert (sampled.train_row_count.dropna() <= 1_000).all()
    assert sampled.train_row_count["ds_order_flow", "close_roc_1"] == 1_000
    assert sampled.recent_row_count["ds_order_flow", "close_roc_1"] == 1_000
    counts = ["row_count", "known_row_count"]
    assert sampled[counts].sort_index().equals(whole[counts].sort_index())
    close = (sampled.correlation - whole.correlation).abs().dropna()
    assert 0 < close.max() < 0.15
