"""`tapehouse status` beside processes that run, ended, were killed, and hold the warehouse."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.request import urlopen

from registry_fixtures import register
from typer.testing import CliRunner

from ingest import health, outbox
from ingest.drain import drain, waiting
from ingest.segment_writer import SegmentWriter
from ingest.service_settings import RemoteModel
from ingest.services import Service
from ingest.settings import Settings
from orchestration.cli import app
from serving.status import status

TAPEHOUSE = "from orchestration.cli import app; app()"
RECORDER = """
import sys, time
from ingest import health, outbox
from ingest.drain import drain, waiting
from ingest.segment_writer import SegmentWriter
from ingest.settings import Settings
with health.running(Settings(), "recorder"):
    health.FRAMES.labels("klines").inc(7)
    health.LAST_FRAME.set(time.time() - float(sys.argv[1]))
    print("ready", flush=True)
    sys.stdin.readline()
"""
HOLDER = """
import sys
from ingest import warehouse
from ingest.settings import Settings
with warehouse.writing(Settings().database):
    print("ready", flush=True)
    sys.stdin.readline()
"""


@contextmanager
def child(code: str, *arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run Python until the end of the block; give it and its first line."""
    with subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout
        try:
            yield process, process.stdout.readline().strip()
        finally:
            process.kill()


def told(*arguments: str) -> tuple[int, dict[str, Any]]:
    done = CliRunner().invoke(app, ["status", "--json", *arguments])
    return done.exit_code, json.loads(done.stdout)


def states(found: dict[str, Any]) -> dict[str, str]:
    return {line["name"]: line["state"] for line in found["lines"]}


def test_the_status_tells_who_runs_who_is_silent_who_was_killed_and_who_holds_the_file() -> None:
    number, found = told()
    assert number == 0
    assert states(found) == dict.fromkeys(
        ["recorder", "loop", "landing", "models"], "never started"
    ) | {"warehouse": "missing", "outbox": "landed"}
    assert told("--require", "loop") == (1, found | {"problems": ["loop is not running"]})

    with child(RECORDER, "0") as (recorder, _):
        number, found = told("--require", "recorder")
        assert (number, states(found)["recorder"]) == (0, "running")
        assert "7 frames" in found["lines"][0]["figures"]
        assert recorder.stdin
        recorder.stdin.write("\n")
        recorder.stdin.flush()
        recorder.wait()
    number, found = told()
    assert (number, states(found)["recorder"]) == (0, "stopped")
    assert "7 frames" in found["lines"][0]["figures"]

    with child(RECORDER, "300") as (recorder, _):
        settings = Settings()
        assert status(settings).problems == ()
        (process,) = health.processes(settings)
        later = process.started_at + timedelta(seconds=90)
        (problem,) = status(settings, now=later).problems
        assert problem == f"recorder (pid {recorder.pid}) has heard nothing for 90 s"
        recorder.send_signal(signal.SIGKILL)
        recorder.wait()
    number, found = told()
    assert (number, states(found)["recorder"]) == (1, "killed")
    assert found["problems"] == [
        f"recorder (pid {recorder.pid}) was killed or crashed: start it again"
    ]

    # A loop that follows the log and says nothing, and the recorder that was killed before.
    with health.running(settings, "loop"):
        late = datetime.now(UTC) + timedelta(minutes=70)
        assert not any("loop" in problem for problem in status(settings).problems)
        problems = status(settings, now=late).problems
        assert any(
            f"loop (pid {os.getpid()}) has computed no bar for 4" in each for each in problems
        )

    with child(HOLDER) as (holder, _):
        assert f"(PID {holder.pid})" in states(told()[1])["warehouse"]
    assert states(told()[1])["warehouse"] == "free"


def test_the_outbox_counts_what_has_not_landed_also_while_the_warehouse_is_held() -> None:
    settings = Settings()
    now_us = int(datetime.now(UTC).timestamp() * 1e6)
    started = [outbox.started({f"version {number}": 0}, at=now_us) for number in range(3)]
    # The command says so in its metrics, and then that there is no warehouse.
    assert CliRunner().invoke(app, ["serve"]).exit_code == 1
    with SegmentWriter(settings.outbox_directory) as writer:
        writer.append_all(started[:2])
        assert waiting(settings.outbox_directory) == 2
        assert health.REGISTRY.get_sample_value("tapehouse_outbox_depth") == 2
        drain(settings)
        assert health.REGISTRY.get_sample_value("tapehouse_outbox_depth") == 0
        assert waiting(settings.outbox_directory) == 0
        with child(HOLDER):
            writer.append(started[2])
            assert states(told()[1])["outbox"] == "1 wait"
        later = datetime.now(UTC) + timedelta(hours=5)
        for now, expected in ((None, []), (later, ["the outbox has waited for 18"])):
            problems = status(settings, now=now).problems
            assert [each[:28] for each in problems if "outbox" in each] == expected
    drain(settings)
    assert states(told()[1])["outbox"] == "landed"


def test_an_open_breaker_and_a_spent_budget_are_problems() -> None:
    settings = Settings()
    for metric in (health.BREAKER, health.SPENT, health.FALLBACKS):
        metric.clear()
    with health.running(settings, "loop"):
        endpoint = RemoteModel(url="http://h", requests_per_day=2, failures_to_open=1)
        service = Service("gpu", endpoint, settings.budgets_directory)
        assert status(settings).problems == ()
        service._breaker.open()
        service._budget.spend()
        assert status(settings).problems == ("service gpu does not answer: its breaker is open",)
        service._breaker.close()
        service._budget.spend()
        assert status(settings).problems == ("service gpu has spent its budget of today",)
        (line,) = [line for line in status(settings).lines if line.name == "service gpu"]
        assert line.since == "today 2 requests, cost 0"
    # Who has ended by itself owes nothing.
    assert status(settings).problems == ()


def test_the_command_serves_models_until_it_is_told_to_stop() -> None:
    (model,) = register(Settings().database, {"ml_a": [1.0]})
    with child(TAPEHOUSE, "serve-model", "--port", "0") as (server, metrics):
        assert server.stdout
        address = server.stdout.readline().strip()
        assert address.endswith(f"/v2/models/ml_a/versions/{model.version}")
        tensor = {"name": "features", "datatype": "FP32", "shape": [1, 1], "data": [0.0]}
        body = json.dumps({"inputs": [tensor]}).encode()
        with urlopen(f"{address}/infer", data=body, timeout=10) as answer:
            assert json.load(answer)["outputs"][0]["data"] == [0.5, 0.5]
        assert (
            health.scrape(metrics.removeprefix("metrics: "))[
                'tapehouse_remote_requests_total{outcome="ok",service="ml_a"}'
            ]
            == 1
        )
        number, found = told("--require", "models")
        assert (number, states(found)["models"]) == (0, "running")
        server.send_signal(signal.SIGTERM)
        assert server.wait(timeout=10) == 0
    assert states(told()[1])["models"] == "stopped"


def test_serving_nothing_or_with_what_is_not_there_is_refused() -> None:
    def refused(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", TAPEHOUSE, "serve-model", *arguments],
            env=os.environ | {"TERM": "dumb"},
            capture_output=True,
            text=True,
            check=False,
        )

    done = refused()
    assert (done.returncode, "there is no warehouse at" in done.stderr) == (1, True)
    done = refused("--provider", "NoSuchProvider")
    assert (done.returncode, "CPUExecutionProvider" in done.stderr) == (2, True)
