"""On BigQuery a model is trained when something changed, and asked about rows that are new.

The emulator keeps CREATE MODEL and runs everything but `ml.predict`; the service trains.
"""

import os
import re
from pathlib import Path

import bigquery_trained_project as project
import pytest
from bigquery_status import IS_WHOLE
from bigquery_trained_project import KEY, dbt, land, rows_of
from cloud_fixtures import SERVICE_PROJECT

from ingest.bigquery import BigQuery
from ingest.settings import Settings

VERSIONS = "select model_version, inputs from {}trained_models order by begun_at, model_version"
TRAINED = "select model_version from {}trained_models where model_version is not null"
LATEST = "(select max(model_version) from {}trained_models)"
PREDICTED = f"""
    select {KEY} from {{}}pred_ticks where model_version = {LATEST} order by 1, 2, 3, 4, 5
"""
# What a look at every row of the dataset would have: what closed after the training.
WANTED = f"""
    select {KEY} from {{}}ds_ticks cross join {{}}trained_models
    where model_version = {LATEST} and closed_at >= train_end_at order by 1, 2, 3, 4, 5
"""
WRITTEN = f"select {KEY}, probability, predicted_at from {{}}pred_ticks order by 1, 2, 3, 4, 5"


@pytest.fixture
def ticks(cloud_settings: Settings, tmp_path: Path) -> Path:
    """The project over five days of bars, with a gap in the last, built."""
    (directory := tmp_path / "project").mkdir()
    has_ml = os.environ["TAPEHOUSE_BIGQUERY_PROJECT"] == SERVICE_PROJECT
    project.write(directory, cloud_settings.bigquery_raw_dataset, has_ml=has_ml)
    land(cloud_settings, range(4))
    land(cloud_settings, [4], hours=[0, 1, 2, 4])
    dbt(directory, "build")
    return directory


def bounds(directory: Path) -> set[str]:
    """Return the times from which on the last run asked the model about rows."""
    compiled = (directory / "target" / "compiled").rglob("pred_ticks.sql")
    return set(re.findall(r"closed\.opened_at >= (timestamp '[^']*')", next(compiled).read_text()))


def looked_at(directory: Path) -> dict[str, str]:
    """Return from when on each test read in the last run, empty for all rows."""
    files = (directory / "target" / "compiled").rglob("described.yml/*.sql")
    found = {
        file.stem: re.search(r"opened_at >= timestamp '([^']*)", file.read_text()) for file in files
    }
    return {name: bound[1][:10] if bound else "" for name, bound in found.items()}


WHOLE = pytest.mark.skipif(not IS_WHOLE, reason="many runs of dbt: `make test-bigquery` runs it")


@WHOLE
def test_a_model_is_trained_when_something_changed(cloud_settings: Settings, ticks: Path) -> None:
    before, (version,) = rows_of(cloud_settings, VERSIONS), rows_of(cloud_settings, TRAINED)
    written = rows_of(cloud_settings, WRITTEN)
    assert str(version[0]).startswith("20250103T")
    assert rows_of(cloud_settings, PREDICTED) == rows_of(cloud_settings, WANTED) != []
    again = dbt(ticks, "build")
    assert "ml_ticks: data, SQL and options are unchanged, training skipped" in again
    assert rows_of(cloud_settings, VERSIONS) == before
    assert rows_of(cloud_settings, WRITTEN) == written
    assert bounds(ticks) == {"timestamp '9999-12-31 00:00:00'"}

    land(cloud_settings, [5])
    dbt(ticks, "build")
    assert len(rows_of(cloud_settings, TRAINED)) == 2
    assert rows_of(cloud_settings, PREDICTED) == rows_of(cloud_settings, WANTED)
    BigQuery(cloud_settings).query(
        f"insert into {cloud_settings.bigquery_dataset}.trained_models (model_name, begun_at) "
        "values ('ml_ticks', current_timestamp())"
    )
    written = rows_of(cloud_settings, WRITTEN)
    land(cloud_settings, [6])
    dbt(ticks, "run", "--exclude", "ml_ticks")
    assert rows_of(cloud_settings, WRITTEN) == written
    dbt(ticks, "build")
    assert len(rows_of(cloud_settings, TRAINED)) == 3
    assert rows_of(cloud_settings, PREDICTED) == rows_of(cloud_settings, WANTED)


@pytest.mark.long
def test_only_days_that_changed_are_asked_about(cloud_settings: Settings, ticks: Path) -> None:
    before = rows_of(cloud_settings, WRITTEN)
    untrained = ("run", "--exclude", "ml_ticks")
    # What came late, and a day that is new; then a day that the dataset learns of a run later.
    land(cloud_settings, [4], hours=[3])
    land(cloud_settings, [5])
    dbt(ticks, *untrained)
    assert bounds(ticks) == {"timestamp '2025-01-05 00:00:00'"}
    assert rows_of(cloud_settings, PREDICTED) == rows_of(cloud_settings, WANTED)
    assert set(before) < set(rows_of(cloud_settings, WRITTEN))
    land(cloud_settings, [6])
    dbt(ticks, "run", "--select", "int_ticks", "pred_ticks")
    assert rows_of(cloud_settings, PREDICTED) == rows_of(cloud_settings, WANTED)
    dbt(ticks, *untrained)
    assert bounds(ticks) == {"timestamp '2025-01-07 00:00:00'"}
    assert rows_of(cloud_settings, PREDICTED) == rows_of(cloud_settings, WANTED)
    assert len(rows_of(cloud_settings, TRAINED)) == 1


@WHOLE
def test_data_tests_read_what_changed_since_they_passed(
    cloud_settings: Settings, ticks: Path
) -> None:
    everything = dict.fromkeys(("one_row_a_bar", "a_flow", "any_time"), "")
    assert looked_at(ticks) == everything
    land(cloud_settings, [4], hours=[3])
    untrained = ("build", "--select", "int_ticks")
    dbt(ticks, *untrained)
    assert looked_at(ticks) == everything | dict.fromkeys(("one_row_a_bar", "a_flow"), "2025-01-05")
    dbt(ticks, "test", "--select", "int_ticks")
    assert looked_at(ticks) == everything | dict.fromkeys(("one_row_a_bar", "a_flow"), "9999-12-31")
    # What failed is looked at again until it passes, whatever came since.
    land(cloud_settings, [4], hours=[5], is_whole=False)
    assert "FAIL 2 a_flow" in dbt(ticks, *untrained, fails=True)
    land(cloud_settings, [5])
    assert "FAIL 2 a_flow" in dbt(ticks, *untrained, fails=True)
    assert looked_at(ticks) == everything | {"one_row_a_bar": "2025-01-06", "a_flow": "2025-01-05"}
    whole = dbt(ticks, "test", "--select", "int_ticks", "--vars", "whole_tests: true", fails=True)
    assert "FAIL 2 a_flow" in whole
    assert looked_at(ticks) == everything


@WHOLE
def test_datasets_that_failed_half_way_are_made_by_the_next_build(
    cloud_settings: Settings, ticks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = f"select * from {cloud_settings.bigquery_dataset}.ds_ticks where symbol = "
    definitions = " union all ".join(
        f"select '{name}' as name, 'is_up' as label, \"\"\"{rows}'{symbol}'\"\"\" as dataset_sql"
        for name, symbol in (("first", "BTCUSDT"), ("second", "{{ env_var('SYMBOL') }}"))
    )
    needs = "{% do ref('strategies') %}{% do ref('ds_ticks') %}"
    config = "{{ config(materialized='datasets') }}"
    (ticks / "models" / "ds_named.sql").write_text(config + needs + definitions)
    (ticks / "models" / "strategies.sql").write_text("select 'first' as name")
    monkeypatch.setenv("SYMBOL", "' || no_column || '")
    dbt(ticks, "run", "--select", "strategies", "ds_named", fails=True)
    monkeypatch.setenv("SYMBOL", "ETHUSDT")
    for _ in range(2):
        dbt(ticks, "run", "--select", "ds_named")
        counts = rows_of(cloud_settings, "select name, row_count from {}ds_named order by name")
        assert counts == [("first", 100), ("second", 100)]
