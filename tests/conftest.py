"""What every test may use: the project's root, the recorded data and the parsed dbt project."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from bigquery_emulator import bigquery_emulator  # noqa: F401
from bigquery_status import bigquery_status  # noqa: F401
from cloud_fixtures import cloud_settings  # noqa: F401
from dbt_fixtures import run_dbt, shared

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def project_root() -> Path:
    return ROOT


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The recorded market data beside the project."""
    path = ROOT.parent / "shared" / "data"
    if not path.is_dir():
        pytest.skip(f"recorded market data is absent: {path}")
    return path


@pytest.fixture(autouse=True)
def own_database(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Keep every test away from the user's warehouse and settings."""
    for name in list(os.environ):
        if name.startswith("TAPEHOUSE_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("TAPEHOUSE_DATABASE", str(tmp_path / "tapehouse.duckdb"))


@pytest.fixture(scope="session")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The manifest of the dbt project, as `dbt parse` writes it."""

    def parse(directory: Path) -> None:
        run_dbt(directory / "tapehouse.duckdb", "parse")

    parsed = shared(tmp_path_factory, "parse", parse)
    return json.loads((parsed / "target" / "manifest.json").read_text())
