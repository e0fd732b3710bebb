"""Every analysis runs and says something."""

from pathlib import Path

import duckdb
import pytest
from dbt_fixtures import run_dbt
from ml_fixtures import build_market

ANALYSES = sorted(
    path.stem
    for path in (Path(__file__).resolve().parents[1] / "dbt_project/analyses").glob("*.sql")
    # It reads qlt_features of real datasets: see test_quality.
    if path.stem != "feature_quality"
)


@pytest.fixture(scope="module")
def market(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A built warehouse beside the compiled analyses."""
    database = build_market(tmp_path_factory.mktemp("analyses"), seed=7, edge=0.5, days=12)
    run_dbt(database, "compile", "--select", "resource_type:analysis")
    return database


def test_there_are_the_analyses_a_person_asks_for() -> None:
    assert {
        *("calibration", "cost_sensitivity", "data_coverage", "feature_importance"),
        *("last_signals", "model_quality", "threshold_curve", "training_curve", "verdict"),
    } <= set(ANALYSES)


@pytest.mark.parametrize("name", ANALYSES)
def test_every_analysis_returns_rows_without_the_functions_of_dbts_connection(
    market: Path, name: str
) -> None:
    compiled = market.parent / "target" / "compiled" / "tapehouse" / "analyses" / f"{name}.sql"
    with duckdb.connect(str(market), read_only=True) as connection:
        assert connection.execute(compiled.read_text()).fetchall() != []


def test_data_coverage_counts_gaps_and_the_longest_one(market: Path) -> None:
    compiled = market.parent / "target" / "compiled" / "tapehouse" / "analyses"
    sql = (compiled / "data_coverage.sql").read_text()
    with duckdb.connect(str(market), read_only=True) as connection:
        columns = "symbol, bars_on_grid, gap_bars, longest_gap_minutes"
        assert connection.execute(f"select {columns} from ({sql})").fetchall() == [
            ("BTCUSDT", 3456, 0, 0),
            ("ETHUSDT", 3456, 3, 15),
            ("SOLUSDT", 3456, 0, 0),
        ]
