"""A wrong variable is refused with its name, the value found and what is allowed."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
WRONG: list[tuple[str, Any, str]] = [
    ("interval_minutes", "five", "rising whole minutes, each a multiple of the one before"),
    ("interval_minutes", 5, "rising whole minutes"),
    ("interval_minutes", [], "rising whole minutes"),
    ("interval_minutes", [1, 5.0, 15, 60], "rising whole minutes"),
    ("interval_minutes", [1, 5, 12, 15, 60], "rising whole minutes"),
    ("interval_minutes", [5, 1, 15, 60], "rising whole minutes"),
    ("interval_minutes", [1, 5, 5, 15, 60], "rising whole minutes"),
    ("interval_minutes", [0, 5, 15, 60], "rising whole minutes"),
    ("interval_minutes", [5, 15, 60, 2880], "a divisor of a day (1440)"),
    ("interval_minutes", [1, 15, 60], "5 for ds_order_flow among them"),
    ("alpha158_interval_minutes", [15, 30], "some of interval_minutes, rising"),
    ("alpha158_interval_minutes", [7], "some of interval_minutes, rising"),
    ("alpha158_interval_minutes", 15, "some of interval_minutes, rising"),
    ("alpha158_interval_minutes", [], "some of interval_minutes, rising"),
    ("slice_rows", 0, "a whole number from 100 to 1000000000"),
    ("book_staleness_bars", -1, "a whole number from 0 to 1000"),
    ("book_staleness_bars", "2", "a whole number from 0 to 1000"),
    ("book_flow_minutes", 0, "a whole number from 1 to 1440"),
    ("large_trade_percentile", 100, "a whole number from 50 to 99"),
    ("large_trade_buckets", 0, "a whole number from 1 to 1000"),
    ("vpin_buckets", 1, "a whole number from 2 to 1000"),
    ("typical_volume_days", 0, "a whole number from 1 to 365"),
    ("vol_regime_bars", 2016.5, "a whole number from 10 to 100000"),
    ("vol_regime_quantiles", [0.7, 0.35], "2 rising numbers between 0 and 1"),
    ("vol_regime_quantiles", [0.35, 0.5, 0.7], "2 rising numbers between 0 and 1"),
    ("vol_regime_quantiles", [35, 70], "2 rising numbers between 0 and 1"),
    ("vol_regime_quantiles", [0.5, 0.5], "2 rising numbers between 0 and 1"),
    ("volume_profile_bucket_bps", 0, "a number from 0.01 to 1000"),
    ("staleness_minutes", 60, "a whole number of minutes above 0 for each of funding, "),
    ("staleness_minutes", {"funding": 540}, "garch_parameters, liquidations, macro_bars"),
    ("funding_interval_minutes", 0, "a whole number from 1 to 1440"),
    ("funding_interval_minutes", 500, "a divisor of the minutes of a day (1440)"),
    ("funding_regime_fundings", 1, "a whole number from 2 to 10000"),
    ("funding_regime_percentiles", [90, 10], "2 rising numbers between 0 and 100"),
    ("funding_regime_percentiles", [0, 100], "2 rising numbers between 0 and 100"),
    ("reference_symbol", "btcusdt", "a symbol as the exchange writes it, such as BTCUSDT"),
    ("reference_symbol", "BTC'", "a symbol as the exchange writes it, such as BTCUSDT"),
    ("sentiment_scorer", "", "the name of a scorer in raw.news_scores, such as vader"),
    ("high_low_barriers", [[15, 2], [16, 2]], "each once and with its columns in lbl_high_low.yml"),
    ("high_low_barriers", [[15, 2], [15, 2]], "each once and with its columns in lbl_high_low.yml"),
    ("high_low_barriers", [15, 2], "pairs of hundredths of a percent (1 to 999) and bars"),
    ("high_low_barriers", [[0.15, 2]], "pairs of hundredths of a percent (1 to 999) and bars"),
    ("importance_models", ["ml_a"], "by the name of each dataset (ds_…) the name of a model"),
    ("imported_models", {"ml_a": {"path": "a.onnx"}}, "by the name of each model its path (gs://"),
    ("high_low_barriers", [], "pairs of hundredths of a percent (1 to 999) and bars"),
    ("adaptive_base", 3, "a number from 1e-06 to 1"),
    ("adaptive_median_bars", "many", "a whole number from 2 to 100000"),
    ("triple_barrier_deviations", 0, "a number from 0.001 to 100"),
    ("label_tolerance", 0, "a number from 0.001 to 100, or null for no opposite barrier"),
    ("label_tolerance", "none", "a number from 0.001 to 100, or null for no opposite barrier"),
    ("whole_tests", "yes", "true or false"),
    ("label_tie", None, '"true", "false" or "null", with the quotes'),
    ("label_tie", "first", '"true", "false" or "null", with the quotes'),
    ("train_share", 60, "a number from 0.01 to 0.98"),
    ("train_share", True, "a number from 0.01 to 0.98"),
    ("validation_share", 0.4, "less than 1 - train_share, which is 0.6: the rest is the test"),
    ("embargo_bars", -1, "a whole number from 0 to 100000"),
    ("fold_count", 0, "a whole number from 1 to 100"),
    ("dataset_market", "futures", "spot or um"),
    ("feature_quality_rows", 0, "a whole number from 100 to 10000000"),
    ("feature_quality_pair_rows", 0, "a whole number from 100 to 100000"),
    ("feature_quality_recent_days", 0.5, "a whole number from 1 to 1000"),
    ("holding_bars", 0, "a whole number from 1 to 1000"),
    ("fee_bps", -1, "a number from 0 to 1000"),
    ("slippage_bps", "1", "a number from 0 to 1000"),
    ("sharpe_minimum_days", 0, "a whole number from 1 to 10000"),
    ("overfitting_blocks", 7, "an even number"),
    ("overfitting_blocks", 0, "a whole number from 2 to 20"),
    ("bootstrap_blocks", 1, "a whole number from 2 to 1000"),
    ("bootstrap_draws", 0, "a whole number from 10 to 100000"),
]
RIGHT: list[tuple[str, Any]] = [
    ("interval_minutes", [5, 15, 60, 1440]),
    ("label_tolerance", None),
    ("label_tolerance", 0.05),
    ("label_tie", "true"),
    ("embargo_bars", 0),
    ("fee_bps", 2.5),
    ("high_low_barriers", [[50, 12]]),
]
# One process parses the project once and checks every change of a variable.
CHECK = """
import json, sys
from dbt.cli.main import dbtRunner

places = sys.argv[1:]
manifest = dbtRunner().invoke(["parse", "--quiet", *places]).result
said = []
runner = dbtRunner(
    manifest=manifest,
    callbacks=[lambda event: event.info.level == "error" and said[-1].append(event.info.msg)],
)
for change in json.load(sys.stdin):
    said.append([])
    arguments = ["--args", json.dumps({"changes": change})]
    quietly = ["--log-level", "none", "--log-level-file", "none"]
    runner.invoke([*quietly, "run-operation", "check_configuration", *arguments, *places])
print(json.dumps(["\\n".join(words) for words in said]))
"""


def dbt_environment(directory: Path) -> dict[str, str]:
    return os.environ | {
        "TAPEHOUSE_DATABASE": str(directory / "tapehouse.duckdb"),
        "PYTHONPATH": str(ROOT),
    }


def places(directory: Path) -> list[str]:
    return [
        *("--project-dir", str(ROOT / "dbt_project"), "--profiles-dir", str(ROOT)),
        *("--target-path", str(directory), "--log-path", str(directory)),
    ]


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What the check says of each wrong and each right value; nothing where it has no word."""
    directory = tmp_path_factory.mktemp("configuration")
    done = subprocess.run(
        [sys.executable, "-c", CHECK, *places(directory)],
        input=json.dumps([{name: value} for name, value, *_ in [*WRONG, *RIGHT]]),
        env=dbt_environment(directory),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("number", range(len(WRONG)), ids=lambda at: f"{WRONG[at][:2]}")
def test_a_wrong_value_is_told_with_its_name_and_what_is_allowed(
    said: list[str], number: int
) -> None:
    name, value, allowed = WRONG[number]
    found = [line.strip() for line in said[number].splitlines() if ": expected " in line]
    assert len(found) == 1, said[number]
    assert found[0].startswith(f"{name} is {json.dumps(value)}: expected ")
    assert allowed in found[0]


def test_values_at_the_edge_of_what_is_allowed_pass(said: list[str]) -> None:
    assert dict(zip(map(str, RIGHT), said[len(WRONG) :], strict=True)) == dict.fromkeys(
        map(str, RIGHT), ""
    )


def test_every_variable_of_the_project_has_a_rule_and_a_wrong_value_in_these_tests() -> None:
    project = yaml.safe_load((ROOT / "dbt_project" / "dbt_project.yml").read_text())
    assert {name for name, *_ in WRONG} == set(project["vars"])


@pytest.mark.parametrize(
    ("variables", "told"),
    [
        ({"staleness_minutes": 7, "fold_counts": 3}, ["staleness_minutes is 7: expected a whole"]),
        ({"fold_counts": 3}, ["fold_counts is no variable: expected one of adaptive_base, "]),
    ],
)
def test_dbt_refuses_wrong_and_unknown_variables_before_it_reads_a_model(
    tmp_path: Path, variables: dict[str, Any], told: list[str]
) -> None:
    command = [str(Path(sys.executable).parent / "dbt"), "--no-use-colors", "parse"]
    done = subprocess.run(
        [*command, *places(tmp_path), "--vars", json.dumps(variables)],
        env=dbt_environment(tmp_path),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "wrong variables (dbt_project.yml or --vars)" in done.stdout
    assert [words for words in told if words not in done.stdout] == []
    rules = re.search(r"is no variable: expected one of ([\w, ]+)", done.stdout)
    assert rules is not None
    project = yaml.safe_load((ROOT / "dbt_project" / "dbt_project.yml").read_text())
    assert set(rules[1].split(", ")) == set(project["vars"])
