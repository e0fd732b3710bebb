"""Calibration fitted in SQL, as for models that BigQuery trained, against scikit-learn."""

import json

import duckdb
import numpy as np
import pandas
import pytest
from dbt_fixtures import run_dbt
from sklearn.linear_model import LogisticRegression

from ml import calibration

FITTED = "{{ ml_fitted_calibration('select is_true, probability from told', bin_count=4000) }}"
CALIBRATED = (
    "{{ ml_calibrated('select place, probability from asked', "
    "ml_fitted_calibration('select is_true, probability from told', bin_count=4000)) }}"
)


@pytest.fixture(scope="module")
def statements(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    inline = f"with fitted_ as ({FITTED}), calibrated_ as ({CALIBRATED}) select 1"
    printed = run_dbt(
        tmp_path_factory.mktemp("calibration") / "tapehouse.duckdb",
        *("compile", "--inline", inline, "--output", "json", "--quiet"),
    )
    sql = json.loads(printed)["compiled"].removesuffix("select 1")
    return {name: f"{sql} select * from {name}" for name in ("fitted_", "calibrated_")}


@pytest.mark.parametrize("seed", range(5))
def test_the_fits_are_those_of_scikit_learn(statements: dict[str, str], seed: int) -> None:
    generator = np.random.default_rng(seed)
    told = generator.choice(np.round(generator.uniform(0.2, 0.8, 150), 6), 4000)
    labels = generator.random(4000) < 0.5 + 0.6 * (told - 0.5) + 0.05 * np.sin(40 * told)
    asked = np.concatenate([[0.0, 1.0], generator.uniform(0, 1, 200), told[:50]])
    oracle = calibration.fit(told, labels.astype(float))
    knots = np.array([(x, y) for method, x, y in oracle if method == "isotonic"])
    ((slope, intercept),) = [(x, y) for method, x, y in oracle if method == "platt"]
    odds = np.log(told / (1 - told)).reshape(-1, 1)
    line = LogisticRegression(C=np.inf, tol=1e-8, max_iter=1000).fit(odds, labels)
    assert [slope, intercept] == pytest.approx(
        [line.coef_.item(), line.intercept_.item()], abs=1e-6
    )
    with duckdb.connect() as connection:
        rows = pandas.DataFrame({"is_true": labels, "probability": told})
        connection.register("told", rows)
        connection.register(
            "asked", pandas.DataFrame({"place": range(len(asked)), "probability": asked})
        )
        fitted = connection.execute(statements["fitted_"]).df()
        found = connection.execute(f"{statements['calibrated_']} order by place").df()
    line = fitted[fitted["method"] == "platt"]
    assert [line["x"].item(), line["y"].item()] == pytest.approx([slope, intercept], abs=1e-6)
    assert found["isotonic_probability"].to_numpy() == pytest.approx(
        np.interp(asked, knots[:, 0], knots[:, 1])
    )
    clipped = np.clip(asked, 1e-6, 1 - 1e-6)
    odds = slope * np.log(clipped / (1 - clipped)) + intercept
    assert found["platt_probability"].to_numpy() == pytest.approx(1 / (1 + np.exp(-odds)), abs=1e-7)
