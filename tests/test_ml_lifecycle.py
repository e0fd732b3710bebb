"""Stages of versions: what the command says and does, gates, rollback, and older registries."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import duckdb
import pytest
from ml_fixtures import warehouse_of
from test_ml_types import train
from typer.testing import CliRunner

from ml import gates, registry
from ml import versions as registered
from ml.plugin import create_functions
from orchestration.cli import app

MANUAL = {"promotion": "manual"}
# The registry as it was before versions had stages.
BEFORE = """
    create schema registry;
    create table registry.models (
        model_name varchar, model_version varchar, stage varchar, model_type varchar, options json,
        features varchar[], label varchar,
        train_end_at timestamp, validation_end_at timestamp, train_rows bigint,
        validation_rows bigint,
        data_hash varchar, data_watermark timestamp, sql_hash varchar, git_revision varchar,
        seed bigint, trainer varchar, metrics json,
        onnx blob, onnx_sha256 varchar,
        parity_sample struct(features float[], probability double)[],
        registered_at timestamp
    );
    create table registry.training_info (
        model_name varchar, model_version varchar, training_run integer, iteration integer,
        loss double, eval_loss double, learning_rate double, duration_ms bigint
    );
    create table registry.feature_importance (
        model_name varchar, model_version varchar, feature varchar,
        importance_weight bigint, importance_gain double, importance_cover double
    );
    create view registry.active_models as (
        select * exclude (onnx, parity_sample)
        from registry.models
        qualify row_number() over (partition by model_name order by registered_at desc) = 1
    );
"""


@pytest.fixture
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A warehouse with two versions of a model, the first champion, the second a candidate."""
    path = tmp_path / "tapehouse.duckdb"
    monkeypatch.setenv("TAPEHOUSE_DATABASE", str(path))
    monkeypatch.setenv("COLUMNS", "250")
    with warehouse_of(path, days=5) as connection:
        train(connection, "ml_test", "LOGISTIC_REG", l2_reg=1000)
        train(connection, "ml_test", "LOGISTIC_REG", l2_reg=1, settings=MANUAL)
    return path


def versions(database: Path, name: str = "ml_test") -> list[tuple[str, str]]:
    with duckdb.connect(str(database), read_only=True) as connection:
        return [(entry.version, entry.stage) for entry in registered.versions(connection, name)]


def change(database: Path, sql: str) -> None:
    with duckdb.connect(str(database)) as connection:
        connection.execute(sql)


def run(*arguments: str) -> str:
    done = CliRunner().invoke(app, ["models", *arguments])
    assert done.exit_code == 0, done.output
    return done.output


def refused(*arguments: str) -> str:
    done = CliRunner().invoke(app, ["models", *arguments])
    assert done.exit_code != 0
    return str(done.exception) if isinstance(done.exception, RuntimeError) else done.output


def test_a_candidate_waits_and_its_promotion_retires_the_champion(database: Path) -> None:
    (new, stage), (old, champion) = versions(database)
    assert (stage, champion) == ("candidate", "champion")
    output = run("promote", "ml_test", new[:6], "--reason", "better")
    assert f"ml_test {new} is champion" in output
    assert versions(database) == [(new, "champion"), (old, "retired")]
    with duckdb.connect(str(database), read_only=True) as connection:
        assert [model.version for model in registry.active_models(connection)] == [new]
        reasons = connection.execute(
            "select stage, reason from registry.stages order by changed_at, model_version = ?",
            [new],
        ).fetchall()
    assert reasons == [
        ("champion", "trained, promoted automatically"),
        ("candidate", "trained"),
        ("retired", f"replaced by {new}"),
        ("champion", "better"),
    ]


def test_a_rollback_brings_the_former_champion_back_and_stays(database: Path) -> None:
    (new, _), (old, _) = versions(database)
    assert "had no champion before" in refused("rollback", "ml_test")
    run("promote", "ml_test", new)
    assert f"{old} is champion again" in run("rollback", "ml_test")
    assert versions(database) == [(new, "retired"), (old, "champion")]
    with duckdb.connect(str(database)) as connection:
        create_functions(connection, database=database)
        done = train(connection, "ml_test", "LOGISTIC_REG", l2_reg=1, settings=MANUAL)
    assert done["status"] == "unchanged"
    assert versions(database) == [(new, "retired"), (old, "champion")]


def test_a_worse_version_needs_force_and_a_reason(database: Path) -> None:
    (new, _), (old, _) = versions(database)
    run("promote", "ml_test", new)
    message = refused("promote", "ml_test", old)
    assert "log_loss no worse than the champion's" in message
    assert versions(database)[1] == (old, "retired")
    assert "--force needs a --reason" in refused("promote", "ml_test", old, "--force")
    run("promote", "ml_test", old, "--force", "--reason", "drill")
    assert versions(database)[1] == (old, "champion")
    assert "drill (forced in spite of: log_loss" in run("show", "ml_test")


def test_a_broken_file_or_a_verdict_against_it_bars_a_version(database: Path) -> None:
    new = versions(database)[0][0]
    change(
        database, f"create table trd_verdict as select '{new}' as model_version, 'NO-GO' as verdict"
    )
    assert "verdict is GO: NO-GO" in refused("promote", "ml_test", new)
    change(database, "update trd_verdict set verdict = 'GO'")
    change(database, "update registry.models set onnx = onnx || '\\x00'::blob")
    assert "do not have the sha256" in refused("promote", "ml_test", new)


def test_a_parity_sample_that_is_not_reproduced_bars_a_version(database: Path) -> None:
    new = versions(database)[0][0]
    change(
        database,
        "update registry.models set parity_sample = list_transform(parity_sample, "
        "lambda row_: {'features': row_.features, 'outputs': [0.5, 0.5]})",
    )
    assert "parity sample differs" in refused("promote", "ml_test", new)


def test_a_model_no_better_than_a_guess_is_barred(database: Path) -> None:
    with duckdb.connect(str(database)) as connection:
        create_functions(connection, database=database)
        label = "hash(opened_at::varchar || symbol) % 2 = 0"
        train(connection, "ml_luck", "LOGISTIC_REG", label, settings=MANUAL)
        area = registered.find(connection, "ml_luck").metrics["roc_auc"]
        connection.execute(
            "update registry.models set metrics = replace(metrics::varchar, ?, '0.5') "
            "where model_name = 'ml_luck'",
            [str(area)],
        )
    version = versions(database, "ml_luck")[0][0]
    assert "ROC AUC above 0.5" in refused("promote", "ml_luck", version)


def test_stages_follow_one_another_only_as_they_may(database: Path) -> None:
    (new, _), (old, _) = versions(database)
    run("promote", "ml_test", new, "--stage", "shadow")
    assert versions(database) == [(new, "shadow"), (old, "champion")]
    assert "is champion; it can become nothing else" in refused(
        "promote", "ml_test", old, "--stage", "retired"
    )
    assert "one of candidate, shadow, champion, retired" in refused(
        "promote", "ml_test", new, "--stage", "king"
    )


def test_versions_are_listed_shown_and_compared(database: Path) -> None:
    (new, _), (old, _) = versions(database)
    listed = run("list")
    assert [line.split()[:4] for line in listed.splitlines()[1:]] == [
        ["ml_test", new, "candidate", "LOGISTIC_REG"],
        ["ml_test", old, "champion", "LOGISTIC_REG"],
    ]
    shown = run("show", "ml_test", new)
    assert "option l2_reg" in shown
    assert "ROC AUC above 0.5" in shown
    compared = run("compare", "ml_test", new)
    assert f"{old} (champion)" in compared
    assert ["option", "l2_reg", "1000", "1"] in [line.split() for line in compared.splitlines()]
    assert "data_hash" not in compared


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["show", "ml_none"], "no model is called ml_none; the registry has ml_test"),
        (["list", "ml_none"], "no model is called ml_none"),
        (["show", "ml_test", "zz"], "no version begins with zz; ml_test has"),
        (["promote", "ml_test", ""], "several versions begin with"),
    ],
)
def test_what_is_not_there_is_named(database: Path, arguments: list[str], message: str) -> None:
    assert message in refused(*arguments)


def test_the_command_tells_errors_in_a_line_and_by_its_exit_code(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "orchestration.cli", "models", "list"],
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("Error: there is no warehouse at")
    assert not (tmp_path / "tapehouse.duckdb").exists()
    duckdb.connect(str(tmp_path / "tapehouse.duckdb")).close()
    assert "run `dbt build" in refused("list")


def test_a_registry_from_before_stages_is_brought_up(database: Path, tmp_path: Path) -> None:
    older = tmp_path / "older.duckdb"
    with duckdb.connect(str(older)) as connection:
        connection.execute(BEFORE)
        connection.execute(f"attach '{database}' as present (read_only)")
        for order, stage in ((1, "active"), (2, "active")):
            connection.execute(
                f"""
                insert into registry.models by name
                select * exclude (role, engine, task, classes, native, transform, origins)
                    replace (
                        list_transform(parity_sample, lambda row_: {{
                            'features': row_.features, 'probability': row_.outputs[2]
                        }}) as parity_sample
                    ),
                    '{stage}' as stage
                from present.registry.models order by registered_at limit 1 offset {order - 1}
                """
            )
        connection.execute("detach present")
        registry.create(connection)
        registry.create(connection)
        newest: Any = connection.execute(
            "select model_version from registry.models order by registered_at desc limit 1"
        ).fetchall()[0][0]
        assert [model.version for model in registry.active_models(connection)] == [newest]
        entries = registered.versions(connection, "ml_test")
        assert [(entry.stage, entry.facts["role"]) for entry in entries] == [
            ("champion", "signal"),
            ("retired", "signal"),
        ]
        assert all(gate.is_passed for gate in gates.gates(connection, entries[0]))
        create_functions(connection, database=older)
        found = connection.execute(
            "select tapehouse_predict(?, [0, 0, 0, 0, 0]::float[])", [newest]
        ).fetchall()
        assert 0 < found[0][0] < 1


def test_metrics_of_a_registry_from_before_stages_are_read() -> None:
    facts = {
        "metrics": json.dumps({"iterations": 3, "log_loss": {"train": 0.5, "validation": 0.6}})
    }
    entry = registered.Version("m", "v", "champion", "", None, None, facts)
    assert entry.validation_loss == 0.6
    assert entry.metrics == {}
