"""Every measure of skew and drift finds what was planted, and nothing where nothing was."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from ingest import warehouse
from ingest.settings import Settings
from ml import registry
from orchestration.cli import app
from orchestration.skew import drift_check, skew_check
from serving.skew import NothingServedError, Prediction, Skew, predictions, skew
from tests.registry_fixtures import add_version, logistic

BARS = 600
BAR = timedelta(minutes=5)


def market(rows: int, *, end: datetime, seed: int) -> pd.DataFrame:
    """Bars with two features, the second unknown in every tenth, and what a model says of them."""
    generator = np.random.default_rng(seed)
    opened_at = pd.date_range(end=end - BAR, periods=rows, freq=BAR)
    return pd.DataFrame(
        {
            "exchange": "binance",
            "market": "um",
            "symbol": "BTCUSDT",
            "interval_minutes": 5,
            "opened_at": opened_at,
            "closed_at": opened_at + BAR,
            "available_at": opened_at + BAR,
            "steady": generator.normal(size=rows).astype("float32"),
            "patchy": pd.array(
                generator.normal(size=rows).astype("float32"), dtype="Float32"
            ).copy(),
            "probability": generator.uniform(0.3, 0.7, rows),
        }
    ).assign(patchy=lambda frame: frame["patchy"].mask(frame.index % 10 == 0))


@pytest.fixture
def settings() -> Settings:
    """A warehouse in which the last 600 of 6,000 bars were served as the batch has them."""
    found = Settings()
    end = pd.Timestamp.now(UTC).tz_localize(None).floor("5min").to_pydatetime()
    bars = market(10 * BARS, end=end, seed=1)
    served = bars.tail(BARS).reset_index(drop=True)
    with warehouse.writing(found.database) as connection:
        registry.create(connection)
        add_version(connection, "ml_planted", logistic([0.0]), features=["steady"])
        connection.execute("update registry.models set model_version = 'v1'").fetchall()
        connection.execute("update registry.stages set model_version = 'v1'").fetchall()
        connection.register("bars", bars)
        connection.execute(
            "create table ds_planted as select * exclude (probability), "
            "if(row_number() over (order by opened_at) <= 3000, 'train', 'test') as split from bars"
        ).fetchall()
        connection.execute(
            "create table pred_planted as select exchange, market, symbol, interval_minutes, "
            "opened_at, 'ml_planted' as model_name, 'v1' as model_version, probability from bars"
        ).fetchall()
        connection.execute("create table pred_of_classes (model_name varchar, predicted integer)")
        instants = {name: served[name].dt.tz_localize("UTC") for name in TIMES}
        features = [
            json.dumps(
                {"steady": float(steady), "patchy": None if pd.isna(patchy) else float(patchy)}
            )
            for steady, patchy in zip(served["steady"], served["patchy"], strict=True)
        ]
        keys = served[["exchange", "market", "symbol", "interval_minutes"]].assign(**instants)
        connection.register(
            "keys", keys.assign(features=features, probability=served["probability"])
        )
        connection.execute(
            "insert into raw.served_features by name select * exclude (probability), "
            "'ds_planted' as dataset, closed_at as served_at from keys"
        ).fetchall()
        connection.execute(
            "insert into raw.signals by name select * exclude (features), "
            "'ml_planted' as model_name, 'v1' as model_version, 'champion' as stage, "
            "false as is_late, closed_at as served_at from keys"
        ).fetchall()
    return found


TIMES = ["opened_at", "closed_at", "available_at"]


def change(settings: Settings, *statements: str) -> None:
    with warehouse.writing(settings.database) as connection:
        for statement in statements:
            connection.execute(statement).fetchall()


def measured(settings: Settings) -> tuple[dict[str, Skew], Prediction]:
    with warehouse.reading(settings.database) as connection:
        (answers,) = predictions(connection)
        return {row.feature: row for row in skew(connection)}, answers


def checked(settings: Settings) -> tuple[bool, dict[str, Any], bool, dict[str, Any]]:
    """Return whether there is no skew and no drift, with what Dagster shows of both."""
    found = []
    for check in (skew_check, drift_check):
        result = check(settings=settings)
        found += [
            bool(result.passed),
            {name: value.value for name, value in result.metadata.items()},
        ]
    return tuple(found)  # type: ignore[return-value]


def exit_code() -> int:
    return CliRunner().invoke(app, ["check", "skew"]).exit_code


def test_nothing_differs_where_nothing_was_planted(settings: Settings) -> None:
    features, answers = measured(settings)
    assert {
        name: (row.rows, row.mismatches, row.missing, row.extra, row.worst)
        for name, row in features.items()
    } == dict.fromkeys(["steady", "patchy"], (BARS, 0, 0, 0, 0.0))
    assert all(row.psi is not None and 0 < row.psi < 0.1 for row in features.values())
    assert (answers.rows, answers.late, answers.mismatches, answers.rate) == (BARS, 0, 0, 1.0)
    assert answers.psi is not None
    assert 0 < answers.psi < 0.1
    is_same, _, is_steady, shown = checked(settings)
    assert (is_same, is_steady, exit_code()) == (True, True, 0)
    assert 0 <= shown["seconds since the last close"] < 1000


def test_values_that_differ_are_counted_also_where_one_is_null(settings: Settings) -> None:
    change(
        settings,
        'update raw.served_features set features = \'{"steady": 9.5, "patchy": 1.0}\' '
        "where opened_at in (select opened_at from raw.served_features order by 1 limit 3)",
        "update ds_planted set steady = 7 where opened_at in "
        "(select opened_at::timestamp from raw.served_features order by 1 limit 2)",
        "update ds_planted set patchy = null",
    )
    features, _ = measured(settings)
    assert (features["steady"].mismatches, features["patchy"].mismatches) == (3, 0.9 * BARS + 1)
    assert features["steady"].worst is not None
    assert features["steady"].worst >= 2.5
    is_same, shown, _, _ = checked(settings)
    assert (is_same, exit_code()) == (False, 1)
    assert sorted(shown["differing"]) == ["patchy", "steady"]
    assert shown["mismatch rate"] == pytest.approx((3 + 0.9 * BARS + 1) / (2 * BARS))
    assert shown["worst difference"] == features["steady"].worst


def test_bars_that_were_not_served_or_should_not_have_been_are_counted(settings: Settings) -> None:
    nth = "opened_at = (select opened_at from raw.served_features order by 1 limit 1 offset {})"
    change(
        settings,
        f"delete from raw.signals where {nth.format(7)} or {nth.format(17)}",
        f"delete from raw.served_features where {nth.format(7)} or {nth.format(17)}",
        "delete from ds_planted where opened_at = (select opened_at::timestamp "
        "from raw.served_features order by 1 limit 1 offset 30)",
    )
    features, answers = measured(settings)
    assert {(row.missing, row.extra) for row in features.values()} == {(2, 1)}
    assert answers.rate == pytest.approx((BARS - 2) / BARS)
    is_same, shown, _, _ = checked(settings)
    assert (is_same, shown["missing"], shown["extra"], exit_code()) == (False, 2, 1, 1)


@pytest.mark.parametrize("built", [0, 20])
def test_what_was_served_since_the_batch_was_built_is_not_compared(
    settings: Settings, built: int
) -> None:
    change(
        settings,
        "delete from ds_planted where opened_at >= (select opened_at::timestamp "
        f"from raw.served_features order by 1 limit 1 offset {built})",
    )
    features, _ = measured(settings)
    assert {(row.rows, row.missing, row.extra) for row in features.values()} == {(built, 0, 0)}
    assert (checked(settings)[0], exit_code()) == (True, 0)


def test_another_answer_than_the_batchs_is_skew(settings: Settings) -> None:
    change(
        settings,
        "update raw.signals set probability = 0.25 where opened_at in "
        "(select opened_at from raw.signals order by 1 limit 4)",
    )
    assert measured(settings)[1].mismatches == 4
    is_same, shown, _, _ = checked(settings)
    assert (is_same, shown["differing"], exit_code()) == (False, ["ml_planted"], 1)


def test_features_unlike_those_of_training_have_drifted(settings: Settings) -> None:
    change(settings, "update ds_planted set steady = steady + 3 where split = 'train'")
    features, _ = measured(settings)
    psi = {name: row.psi or 0.0 for name, row in features.items()}
    assert psi["steady"] > 1
    assert psi["patchy"] < 0.1
    is_same, _, is_steady, shown = checked(settings)
    assert (is_same, is_steady, shown["drifted"]) == (True, False, ["steady"])
    assert shown["largest PSI of a feature"] == pytest.approx(psi["steady"])


@pytest.mark.parametrize("folds", [True, False])
def test_answers_unlike_those_of_training_have_drifted(settings: Settings, folds: bool) -> None:
    low = (
        "select model_name, model_version, opened_at, 0.3 * random() as prediction "
        "from pred_planted"
    )
    served = "opened_at >= (select min(opened_at)::timestamp from raw.signals)"
    change(
        settings,
        f"insert into registry.out_of_fold by name {low}"
        if folds
        else f"update pred_planted set probability = 0.3 * random() where not ({served})",
    )
    assert (measured(settings)[1].psi or 0) > 1
    is_same, _, is_steady, shown = checked(settings)
    assert (is_same, is_steady, shown["drifted"]) == (True, False, ["ml_planted"])
    assert shown["largest PSI of predictions"] > 1


def test_what_was_served_long_ago_is_stale_and_too_few_answers_are_seen(
    settings: Settings,
) -> None:
    _, _, is_steady, _ = checked(settings)
    assert is_steady
    change(settings, "delete from raw.signals where epoch(opened_at) % 1500 = 0")
    _, _, is_steady, shown = checked(settings)
    assert not is_steady
    assert shown["lowest prediction rate"] == pytest.approx(0.8, abs=0.01)
    change(
        settings,
        "delete from raw.signals where opened_at > (select max(opened_at) from raw.signals) "
        "- interval 2 hours",
    )
    _, _, is_steady, shown = checked(settings)
    assert not is_steady
    assert shown["seconds since the last close"] > 7200
    assert shown["silent"] == ["ml_planted"]


def test_a_silent_champion_is_seen_beside_one_that_speaks_and_who_retired_is_not_expected(
    settings: Settings,
) -> None:
    with warehouse.writing(settings.database) as connection:
        silent = add_version(connection, "ml_silent", logistic([1.0]), features=["steady"])
        connection.execute(
            "insert into raw.signals by name select * replace ('ml_old' as model_name) "
            "from raw.signals where opened_at < (select median(opened_at) from raw.signals) "
            "and epoch(opened_at) % 1500 = 0"
        ).fetchall()
    _, _, is_steady, shown = checked(settings)
    assert (is_steady, shown["silent"], shown["lowest prediction rate"]) == (
        *(False, ["ml_silent"]),
        1.0,
    )
    now = datetime.now(UTC).replace(tzinfo=None)
    with warehouse.writing(settings.database) as connection:
        connection.execute(
            "update registry.stages set changed_at = ? where model_version = ?", [now, silent]
        ).fetchall()
    assert checked(settings)[2]


def test_a_missing_bar_alone_is_skew_and_old_bars_are_not_compared_again(
    settings: Settings,
) -> None:
    gone = "opened_at = (select min(opened_at) + interval 50 minute from raw.served_features)"
    change(settings, f"delete from raw.served_features where {gone}")
    is_same, shown, _, _ = checked(settings)
    assert (is_same, shown["missing"], exit_code()) == (False, 1, 1)
    with warehouse.reading(settings.database) as connection:
        assert {row.missing for row in skew(connection, days=1)} == {0}
        assert {row.rows for row in predictions(connection, days=1)} == {288}


def test_where_nothing_was_served_the_checks_pass_and_the_command_says_what_to_run(
    settings: Settings,
) -> None:
    change(settings, "delete from raw.served_features")
    assert checked(settings)[::2] == (True, True)
    with (
        warehouse.reading(settings.database) as connection,
        pytest.raises(NothingServedError, match="tapehouse serve"),
    ):
        skew(connection)
    assert exit_code() == 1
