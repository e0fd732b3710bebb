"""What every test may use: the project's root, the recorded data and the parsed dbt project."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from bigquery_emulator import bigquery_emulator  # noqa: F401

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
    target = tmp_path_factory.mktemp("parse")
    command = [
        *(str(Path(sys.executable).parent / "dbt"), "parse", "--no-partial-parse"),
        *("--project-dir", str(ROOT / "dbt_project"), "--profiles-dir", str(ROOT)),
        *("--target-path", str(target), "--log-path", str(target)),
    ]
    environment = os.environ | {"TAPEHOUSE_DATABASE": str(target / "tapehouse.duckdb")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads((target / "manifest.json").read_text())
