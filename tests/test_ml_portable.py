"""Trees walked by SQL say what the model's file says, without Python."""

import json
from pathlib import Path

import duckdb
import numpy as np
import pytest
from dbt_fixtures import dbt, run_dbt
from ml_fixtures import warehouse_of

from ml import onnx_model, registry

FEATURES = ["flow", "noise_0", "noise_1", "noise_2", "noise_3"]
LABELS = {
    "ml_binary": ("BOOSTED_TREE_CLASSIFIER", "is_up_5"),
    "ml_many": ("BOOSTED_TREE_CLASSIFIER", "case when abs(return_5) < 1e-3 then 'small' "
        "when return_5 > 0 then 'up' else 'down' end"),
    "ml_value": ("RANDOM_FOREST_REGRESSOR", "return_5"),
    "ml_xgboost": ("BOOSTED_TREE_CLASSIFIER", "is_up_5"),
    "ml_transformed": ("BOOSTED_TREE_CLASSIFIER", "is_up_5"),
    "ml_many_transformed": ("RANDOM_FOREST_CLASSIFIER", "case when abs(return_5) < 1e-3 "
        "then 'small' when return_5 > 0 then 'up' else 'down' end"),
    "ml_xgboost_transformed": ("BOOSTED_TREE_REGRESSOR", "1e4 * return_5"),
}  # fmt: skip
SETTINGS = {
    "ml_xgboost": {"engine": "xgboost"},
    "ml_transformed": {
        "transform": {
            "flow": "ML.QUANTILE_BUCKETIZE(8)",
            "noise_0": "ML.ROBUST_SCALER",
            "noise_1": "ML.BUCKETIZE(-0.5, 0.25, 1)",
            "noise_2": "ML.MIN_MAX_SCALER",
            "noise_3": "ML.ONE_HOT_ENCODER",
        }
    },
    "ml_many_transformed": {
        "transform": {"flow": "ML.IMPUTER('median')", "noise_*": "ML.STANDARD_SCALER"}
    },
    "ml_xgboost_transformed": {
        "engine": "xgboost",
        "transform": {
            "flow": "ML.MAX_ABS_SCALER",
            "noise_0": "ML.BUCKETIZE(0)",
            "noise_1": "ML.MIN_MAX_SCALER",
            "noise_3": "ML.ONE_HOT_ENCODER",
        },
    },
}
MACRO = (
    "ml_predict_portable("
    "api.Relation.create(schema='main', identifier='{name}'), 'select * from edges')"
)


@pytest.fixture(scope="module")
def market(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A warehouse with a model of each kind, and rows with values at thresholds and missing."""
    database = tmp_path_factory.mktemp("portable") / "tapehouse.duckdb"
    with warehouse_of(database, days=5) as connection:
        # A feature of few values that matters, and one that is missing now and then.
        connection.execute(
            "update ds_order_flow set noise_3 = round(noise_3 + flow), "
            "noise_1 = case when hash(opened_at) % 7 > 0 then noise_1 + flow end"
        )
        for name, (kind, label) in {**LABELS, "ml_line": ("LOGISTIC_REG", "is_up_5")}.items():
            given = {
                "model_type": kind,
                "input_label_cols": ["y"],
                "data_split_method": "CUSTOM",
                "data_split_col": "split",
                **({"max_tree_depth": 5} if name in LABELS else {}),
            }
            config = {"given": given, **SETTINGS.get(name, {})}
            query = f"select {', '.join(FEATURES)}, {label} as y, split from ds_order_flow"
            connection.execute(
                "select tapehouse_train(?, ?, ?)", [name, query, json.dumps(config)]
            ).fetchall()
        generator = np.random.default_rng(1)
        rows = np.empty((2_000, len(FEATURES)), dtype=np.float32)
        for position in range(len(FEATURES)):
            found = connection.execute(
                "select distinct threshold from registry.tree_nodes "
                "where feature = ? and abs(threshold) < 1e38",
                [position + 1],
            ).fetchnumpy()["threshold"]
            beside = [np.nextafter(found, np.float32(end)) for end in (-np.inf, np.inf)]
            values = np.concatenate([found, *beside, [0, np.nan, np.inf, -np.inf]])
            rows[:, position] = generator.choice(values, len(rows))
        columns = {name: rows[:, position] for position, name in enumerate(FEATURES)}
        connection.execute(
            f"create table edges ({', '.join(f'{name} float' for name in FEATURES)})"
        )
        connection.register("given", columns)
        connection.execute("insert into edges by name select * from given")
        connection.execute("update edges set flow = null where isnan(flow) and random() < 0.5")
        connection.unregister("given")
    return database


def test_any_client_gets_what_the_model_files_say(market: Path) -> None:
    parts = [
        f"select '{name}' as model, prediction, probabilities::double[] as probabilities, "
        f"{', '.join(FEATURES)} from ({{{{ {MACRO.format(name=name)} }}}}) as {name}"
        for name in LABELS
    ]
    compiled = run_dbt(market, "--quiet", "compile", "--inline", " union all ".join(parts))
    with duckdb.connect(str(market), read_only=True) as connection:
        for model in registry.active_models(connection):
            if model.name not in LABELS:
                continue
            rows = connection.execute(
                f"select * from ({compiled}) where model = ?", [model.name]
            ).fetchnumpy()
            matrix = np.column_stack(
                [np.ma.filled(rows[name].astype(np.float32), np.nan) for name in FEATURES]
            )
            session = onnx_model.load(registry.model_file(connection, market, model.sha256))
            expected = onnx_model.outputs(session, matrix)
            assert matrix.shape == (2_000, 5)
            assert np.isnan(matrix).any()
            assert np.abs(rows["prediction"] - expected[:, -1]).max() <= 1e-9
            if model.task != "regression":
                found = np.array([list(row) for row in rows["probabilities"]])
                assert np.abs(found - expected).max() <= 1e-9


def test_a_model_without_trees_is_refused_by_name(market: Path) -> None:
    call = MACRO.format(name="ml_line")
    done = dbt(market, "--quiet", "compile", "--inline", f"{{{{ {call} }}}}")
    assert done.returncode != 0
    assert "ml_line has no trees: use ml_predict" in done.stdout
