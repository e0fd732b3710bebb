"""Each model type trains, predicts, evaluates and explains inside one `dbt build`."""

import shutil
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas
import pytest
import yaml
from dbt_fixtures import PROJECT, ROOT, run_dbt
from ml_fixtures import SMALL_MODELS, write_dataset
from sklearn.metrics import log_loss, mean_squared_error, r2_score, roc_auc_score

from ml import vocabulary

MODELS = {
    f"ml_{model_type}_{engine or 'any'}".lower(): (model_type, engine)
    for model_type in vocabulary.TYPES
    for engine in vocabulary.ENGINES.get(model_type, (None,))
}
# Bars of five minutes of two symbols of 2025; features end with the bar, the label five bars on.
RECORDED = """
    create table dataset as
    with bars as (
        select '{0}' as symbol, * from '{1}/um/klines_{0}_5m.parquet' where raw_layout
        union all by name
        select '{2}' as symbol, * from '{1}/um/klines_{2}_5m.parquet' where raw_layout
    ),
    learned as (
        select symbol, make_timestamp(open_time * 1000) as opened_at,
            make_timestamp(open_time * 1000) + interval 30 minute as label_end_at,
            ln(close / lag(close) over series)::float as return_1,
            ln(close / lag(close, 12) over series)::float as return_12,
            ((high - low) / close)::float as width,
            (taker_buy_volume / nullif(volume, 0))::float as bought,
            ln(volume / nullif(lag(volume) over series, 0))::float as volume_change,
            1e4 * ln(lead(close, 5) over series / close)::double as moved,
            row_number() over series as place
        from bars
        window series as (partition by symbol order by open_time)
    )
    select * exclude (place), moved > 0 as is_up,
        case when place <= 2400 then 'train' when place between 2412 and 2988 then 'validation'
            when place between 3000 and 4200 then 'test' end as split
    from learned where place <= 4200
"""


def project() -> Path:
    """Write a project of a model of each type, with the macros and variables of the warehouse."""
    found = ROOT / ".pytest_cache" / "ml_build"
    shutil.rmtree(found / "models", ignore_errors=True)
    (found / "models").mkdir(parents=True)
    settings = yaml.safe_load((PROJECT / "dbt_project.yml").read_text())
    kept = {key: settings[key] for key in ("name", "version", "profile", "flags", "vars")}
    own = {"macro-paths": [str(PROJECT / "macros")], "models": {"+materialized": "table"}}
    (found / "dbt_project.yml").write_text(yaml.safe_dump(kept | own))
    for name, (model_type, engine) in MODELS.items():
        label, other = "is_up", "moved"
        if not vocabulary.is_classifier(model_type):
            label, other = other, label
        config = {
            "materialized": "ml_model",
            "model_type": model_type,
            "input_label_cols": [label],
            "data_split_method": "CUSTOM",
            "data_split_col": "split",
            "key_columns": ["symbol", "opened_at"],
            "label_end_column": "label_end_at",
            **({"engine": engine} if engine else {}),
            **SMALL_MODELS[model_type],
        }
        models = {name: f"{{{{ config(**{config!r}) }}}} select * exclude ({other}) from dataset"}
        for verb, more in (("predict", ""), ("evaluate", ""), ("explain_predict", ", 2")):
            query = "select * from dataset where split = 'test'"
            call = f"ml_{verb}(ref('{name}'), \"{query}\"{more})"
            models[f"{verb}_{name}"] = f"{{{{ {call} }}}}"
        for model, sql in models.items():
            (found / "models" / f"{model}.sql").write_text(sql)
    return found


@pytest.fixture(scope="module", params=["synthetic", "recorded"])
def market(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Path]:
    """A warehouse with a dataset, after `dbt build` of a project with a model of each type."""
    database = tmp_path_factory.mktemp(request.param) / "tapehouse.duckdb"
    with duckdb.connect(str(database)) as connection:
        if request.param == "recorded":
            recorded = request.getfixturevalue("shared_data")
            connection.execute(RECORDED.format("BTCUSDT", recorded, "SOLUSDT"))
        else:
            symbols = ["BTCUSDT", "ETHUSDT"]
            write_dataset(connection, seed=5, edge=0.5, days=8, symbols=symbols)
            connection.execute(
                "create table dataset as select symbol, opened_at, label_end_at, flow, "
                "columns('noise_.*'), is_up_5 as is_up, 1e4 * return_5 as moved, split "
                "from ds_order_flow"
            )
    run_dbt(database, "build", project=project())
    return request.param, database


@pytest.fixture(params=MODELS)
def told(request: pytest.FixtureRequest, market: tuple[str, Path]) -> dict[str, Any]:
    """What dbt's tables say of a model."""
    name = request.param
    with duckdb.connect(str(market[1]), read_only=True) as connection:
        return {
            "market": market[0],
            "is_classifier": vocabulary.is_classifier(MODELS[name][0]),
            "registered": connection.execute(f"from {name}").df(),
            "predicted": connection.execute(f"from predict_{name} order by symbol, opened_at").df(),
            "evaluated": connection.execute(f"from evaluate_{name}").df().iloc[0],
            "explained": connection.execute(
                f"from explain_predict_{name} order by symbol, opened_at"
            ).df(),
        }


def test_what_is_predicted_is_evaluated_as_scikit_learn_does_and_explained(
    told: dict[str, Any],
) -> None:
    predicted, evaluated, explained = (told[key] for key in ("predicted", "evaluated", "explained"))
    assert len(told["registered"]) == 1
    assert len(predicted) == len(explained) > 500
    if told["is_classifier"]:
        odds = [
            next(part["prob"] for part in parts if part["label"])
            for parts in predicted["predicted_is_up_probs"]
        ]
        labels = predicted["is_up"].astype(bool)
        assert evaluated["roc_auc"] == pytest.approx(roc_auc_score(labels, odds))
        assert evaluated["log_loss"] == pytest.approx(log_loss(labels, odds))
        said = np.where(predicted["predicted_is_up"].astype(bool), odds, 1 - np.array(odds))
        assert explained["probability"].to_numpy() == pytest.approx(said, abs=1e-12)
        score = np.log(said / (1 - said))
        # A market that was recorded gives nobody much more than a coin.
        floor, ceiling = (0.6, 0.9) if told["market"] == "synthetic" else (0.45, 0.6)
        assert floor < evaluated["roc_auc"] < ceiling
    else:
        score = predicted["predicted_moved"].to_numpy()
        pair = predicted["moved"], score
        assert evaluated["mean_squared_error"] == pytest.approx(mean_squared_error(*pair))
        assert evaluated["r2_score"] == pytest.approx(r2_score(*pair), abs=1e-9)
        floor, ceiling = (0.05, 0.5) if told["market"] == "synthetic" else (-0.1, 0.05)
        assert floor < evaluated["r2_score"] < ceiling
    assert explained["prediction_value"].to_numpy() == pytest.approx(score, rel=1e-4, abs=1e-4)
    attributed = pandas.Series(explained["top_feature_attributions"]).map(len)
    assert attributed.eq(2).all()
