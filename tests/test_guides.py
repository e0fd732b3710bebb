"""The examples of the guides, run as they are written."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import pytest
from ml_fixtures import write_dataset
from typer.testing import CliRunner

from ingest.simulator import Market, simulator
from orchestration.cli import app

GUIDE = "docs/guides/your-own-data.md"
# What the synthetic dataset has, by the names of the columns that the guide takes.
FIRST_FEATURES = {
    "flow": "imbalance_5",
    "noise_0": "microprice_rel",
    "noise_1": "ofi_1_rel",
    "noise_2": "close_roc_5",
    "noise_3": "spread_pct_12",
}


@pytest.fixture
def example(project_root: Path) -> str:
    text = (project_root / GUIDE).read_text()
    return text.split("### An example from beginning to end\n")[1].split("\n## ")[0]


def block(text: str, language: str) -> str:
    (found,) = re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)
    return str(found)


@pytest.mark.long
def test_the_example_of_headlines_and_macro_bars_gives_the_table_beside_it(
    example: str, project_root: Path, tmp_path: Path
) -> None:
    for name in ("dbt_project", "profiles.yml"):
        (tmp_path / name).symlink_to(project_root / name)
    database = tmp_path / "data" / "tapehouse.duckdb"
    artifacts = str(tmp_path / "dbt")
    market = Market(3, ["BTCUSDT"], start=datetime(2024, 12, 31, tzinfo=UTC), days=6)
    with simulator(market) as exchange:
        environment = os.environ | {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(project_root),
            "TAPEHOUSE_DATABASE": str(database),
            "TAPEHOUSE_EXCHANGE_URL": exchange.url,
            "DBT_TARGET_PATH": artifacts,
            "DBT_LOG_PATH": artifacts,
        }
        done = subprocess.run(
            ["bash", "-euc", block(example, "bash")],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    with duckdb.connect(str(database), read_only=True) as connection:
        rows = connection.execute(block(example, "sql")).fetchall()
    found = [["NULL" if value is None else str(value) for value in row] for row in rows]
    table = [line.strip("| ").split(" | ") for line in example.splitlines() if line[:2] == "| "]
    assert [[value.removesuffix(".0").replace("True", "true").replace("False", "false")
             for value in row] for row in found] == table[1:]  # fmt: skip


def commands(text: str) -> list[list[str]]:
    """The arguments of each `tapehouse` command in the code of a guide."""
    blocks = "\n".join(re.findall(r"```bash\n(.*?)```", text, re.DOTALL))
    blocks = re.sub(r"\$\([^)]*\)", "$found", blocks)
    lines = blocks.replace("\\\n", " ").splitlines()
    found = (re.search(r"(?<![./\w-])tapehouse ([a-z].*)", line) for line in lines)
    return [
        [word for word in shlex.split(match[1], comments=True) if word != "&"]
        for match in found
        if match
    ]


def test_every_command_of_the_guides_exists_and_takes_its_options(project_root: Path) -> None:
    found = [
        (guide.name, arguments)
        for guide in sorted((project_root / "docs" / "guides").glob("*.md"))
        for arguments in commands(guide.read_text())
    ]
    unknown = [
        f"{name}: tapehouse {shlex.join(arguments)}: {done.output}"
        for name, arguments in found
        if (done := CliRunner().invoke(app, [*arguments, "--help"])).exit_code
    ]
    assert unknown == []
    assert len(found) > 10


@pytest.mark.long
def test_the_first_model_is_trained_and_asked_as_the_guide_says(
    project_root: Path, tmp_path: Path
) -> None:
    guide = (project_root / "docs/guides/train-your-first-model.md").read_text()
    shutil.copytree(
        project_root / "dbt_project",
        tmp_path / "dbt_project",
        ignore=shutil.ignore_patterns("target", "logs"),
    )
    (tmp_path / "profiles.yml").symlink_to(project_root / "profiles.yml")
    (tmp_path / ".venv/bin").mkdir(parents=True)
    (tmp_path / ".venv/bin/dbt").symlink_to(Path(sys.executable).with_name("dbt"))
    named = re.search(r"`(dbt_project/models/models/\w+\.sql)`", guide)
    assert named is not None
    (tmp_path / named[1]).write_text(block(guide, "sql"))
    database = tmp_path / "data/demo/tapehouse.duckdb"
    database.parent.mkdir(parents=True)
    with duckdb.connect(str(database)) as connection:
        write_dataset(connection, seed=5, edge=0.5, days=5, symbols=["BTCUSDT", "ETHUSDT"])
        for own, feature in FIRST_FEATURES.items():
            connection.execute(f"alter table ds_order_flow rename {own} to {feature}")
    commands = re.findall(r"```sh\n(.*?)```", guide, re.DOTALL)
    again = "dbt build --select ml_first\n"
    done = subprocess.run(
        ["bash", "-euc", "shopt -s expand_aliases\n" + "\n".join([*commands, again])],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(project_root)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    told = ["ml_first: trained version", "data, SQL and options are unchanged"]
    columns = ["roc_auc", "expected_label", "importance_gain", "top_feature_attr"]
    assert [word for word in (*told, *columns) if word not in done.stdout] == []
    assert [feature for feature in FIRST_FEATURES.values() if feature not in done.stdout] == []
