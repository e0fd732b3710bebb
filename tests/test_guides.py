"""The examples of the guides, run as they are written."""

import os
import re
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import pytest
from typer.testing import CliRunner

from ingest.simulator import Market, simulator
from orchestration.cli import app

GUIDE = "docs/guides/your-own-data.md"


@pytest.fixture
def example(project_root: Path) -> str:
    text = (project_root / GUIDE).read_text()
    return text.split("### An example from beginning to end\n")[1].split("\n## ")[0]


def block(text: str, language: str) -> str:
    (found,) = re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)
    return str(found)


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
