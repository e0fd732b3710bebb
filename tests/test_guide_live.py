"""The guide "Run it live, in shadow mode", word for word, against the simulator and its clock."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ingest import outbox, warehouse
from ingest.segments import SegmentReader
from ingest.settings import Settings

PATIENCE_S = 900.0
PORTS = ("8321", "9461", "9462", "9463")


class Shell:
    """A terminal in which the guide is followed, and where background processes go on."""

    def __init__(self, directory: Path, environment: dict[str, str]) -> None:
        self._directory = directory
        self._count = 0
        with (directory / "shell.log").open("wb") as log:
            self._bash = subprocess.Popen(
                ["bash", "-eu"],
                cwd=directory,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def run(self, block: str) -> str:
        """Run a block to its end; return what was printed meanwhile."""
        log = self._directory / "shell.log"
        begin = log.stat().st_size
        self._count += 1
        done = self._directory / f"done.{self._count}"
        assert self._bash.stdin
        self._bash.stdin.write(f"{block}\ntouch {done}\n".encode())
        self._bash.stdin.flush()
        self.wait_for(done.exists)
        return log.read_bytes()[begin:].decode()

    def wait_for(self, condition: Callable[[], bool]) -> None:
        until = time.monotonic() + PATIENCE_S
        while not condition():
            told = (self._directory / "shell.log").read_text()[-3000:]
            assert self._bash.poll() is None, told
            assert time.monotonic() < until, told
            time.sleep(1)

    def close(self) -> None:
        os.killpg(self._bash.pid, signal.SIGKILL)
        self._bash.communicate()


@contextmanager
def terminal(project_root: Path, directory: Path) -> Iterator[Shell]:
    for name in ("dbt_project", "profiles.yml"):
        (directory / name).symlink_to(project_root / name)
    artifacts = str(directory / "dbt")
    shell = Shell(
        directory,
        os.environ
        | {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(project_root),
            "TAPEHOUSE_DATABASE": str(directory / "data" / "tapehouse.duckdb"),
            "TAPEHOUSE_SYMBOLS": "BTCUSDT,ETHUSDT",
            "DBT_TARGET_PATH": artifacts,
            "DBT_LOG_PATH": artifacts,
        },
    )
    try:
        yield shell
    finally:
        shell.close()


def free_port() -> str:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return str(taken.getsockname()[1])


def answers(port: str) -> bool:
    with socket.socket() as asking:
        return asking.connect_ex(("127.0.0.1", int(port))) == 0


def stages(settings: Settings) -> set[str]:
    """The stages of those who said something."""
    found: set[str] = set()
    with SegmentReader(settings.outbox_directory) as reader:
        while frames := reader.read():
            if (rows := outbox.rows(frames).get("signals")) is not None:
                found.update(rows["stage"].to_pylist())
    return found


@pytest.mark.long
def test_the_live_chain_is_set_up_watched_and_compared_as_the_guide_says(
    project_root: Path, tmp_path: Path
) -> None:
    guide = (project_root / "docs" / "guides" / "run-it-live.md").read_text()
    # Ports may be taken here, and which version was retired is seen only then.
    ports = {port: free_port() for port in PORTS}
    for port, free in ports.items():
        guide = guide.replace(port, free)
    simulate, record, train, serve, watch, status, compare = re.findall(
        r"```bash\n(.*?)```", guide, re.DOTALL
    )
    (said,) = re.findall(r"```sql\n(.*?);?\n```", guide, re.DOTALL)
    settings = Settings(database=tmp_path / "data" / "tapehouse.duckdb")

    def rows() -> list[tuple[object, ...]]:
        with warehouse.reading(settings.database) as connection:
            return connection.execute(said).fetchall()

    with terminal(project_root, tmp_path) as shell:
        shell.run(simulate)
        shell.wait_for(lambda: answers(ports["8321"]))
        shell.run(record)
        assert "ERROR=0" in shell.run(train)
        shell.run(serve)
        retrain, listing, promote = watch.strip().splitlines()
        versions = shell.run(f"{retrain}\n{listing}")
        (retired,) = re.findall(r"ml_order_flow +([0-9a-f]{4})[0-9a-f]{12} +retired", versions)
        assert f"ml_order_flow {retired}" in shell.run(promote.replace("3f2a", retired))
        shell.wait_for(lambda: {"champion", "shadow", "ensemble"} <= stages(settings))
        assert "! " not in shell.run(status)
        shell.wait_for(lambda: bool(rows()))
        compared = shell.run(compare)
        # Each process ends by itself, and well: a failure would end the shell.
        shell.run("for job in $(jobs -p | tail -n 3); do kill $job; wait $job; done")
    assert "Served features against the batch" in compared
