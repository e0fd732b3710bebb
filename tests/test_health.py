"""What running processes tell: metrics, notes for the status, and logs without secrets."""

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from ingest import health, logs
from ingest.settings import Settings

CANARY = "s3cr3t-canary-value"


def run_python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.mark.parametrize("form", ["json", "console"])
def test_no_log_line_carries_a_secret(form: str) -> None:
    done = run_python(
        f"""
        import logging
        from ingest import logs
        logs.configure({form!r}, "debug")
        log = logs.logger("test")
        secret = {CANARY!r}
        log.info("plain", token=secret, nested={{"headers": [{{"Authorization": secret}}]}})
        log.info("url", url=f"https://user:{{secret}}@host/x?symbol=A&signature={{secret}}&b=1")
        log.warning(f"said Bearer {{secret}} and {{{{'apiKey': secret}}}}")
        log.warning("bytes", body=b"x-api-key: " + secret.encode())
        log.error("env", text=f"value {{secret[::-1]}} of the environment")
        try:
            raise ValueError(f"token={{secret}}")
        except ValueError:
            log.exception("failed")
            logging.getLogger("library").exception("failed with %s", f"secret={{secret}}")
        logging.getLogger("library").warning("listenKey=%s", secret)
        """,
        DEMO_API_KEY=CANARY[::-1],
    )
    assert done.returncode == 0, done.stderr
    assert CANARY not in done.stderr
    assert CANARY[::-1] not in done.stderr
    assert done.stderr.count("ValueError: token=[redacted]") == 2
    assert "symbol=A" in done.stderr
    assert "b=1" in done.stderr
    assert done.stdout == ""
    if form == "json":
        lines = [json.loads(line) for line in done.stderr.splitlines()]
        assert [line["level"] for line in lines] == [
            *("info", "info", "warning", "warning", "error", "error", "error", "warning")
        ]
        assert lines[0] == {
            "event": "plain",
            "level": "info",
            "nested": {"headers": [{"Authorization": "[redacted]"}]},
            "part": "test",
            "timestamp": lines[0]["timestamp"],
            "token": "[redacted]",
        }
        assert lines[-1]["logger"] == "library"


def test_what_is_no_secret_is_logged_as_it_is() -> None:
    entry = {
        "symbol": "BTCUSDT",
        "rows": 3,
        "text": "keys: a, b; https://host:1/p?x=1",
        "none": None,
    }
    assert logs.redact(entry) == entry


def test_a_proxy_is_not_asked_for_metrics_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    with health.running(Settings(), "loop") as address:
        assert health.scrape(address)


def test_one_recorder_does_not_hide_that_the_other_was_killed() -> None:
    settings = Settings()
    code = """
        import os
        from ingest import health
        from ingest.settings import Settings
        with health.running(Settings(), "recorder", part="spot"):
            os.kill(os.getpid(), 9)
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=False)
    with health.running(settings, "recorder", part="um"):
        assert [each.is_running for each in health.processes(settings)] == [False, True]
    with health.running(settings, "recorder", part="spot"):
        assert [each.is_running for each in health.processes(settings)] == [True, False]


def test_metrics_and_a_note_tell_who_runs_who_ended_and_who_was_killed(tmp_path: Path) -> None:
    settings = Settings()
    assert health.processes(settings) == []
    health.GAPS.labels("kind of this test").inc(2)
    with health.running(settings, "recorder") as address:
        assert address.startswith("http://127.0.0.1:")
        (process,) = health.processes(settings)
        assert (process.role, process.pid, process.is_running) == ("recorder", os.getpid(), True)
        assert process.metrics['tapehouse_gaps_total{kind="kind of this test"}'] == 2
        health.GAPS.labels("kind of this test").inc()
        assert health.scrape(address)['tapehouse_gaps_total{kind="kind of this test"}'] == 3
    (process,) = health.processes(settings)
    assert (process.is_running, process.stopped_at is None) == (False, False)
    assert process.metrics['tapehouse_gaps_total{kind="kind of this test"}'] == 3
    assert health.scrape(address) == {}

    code = """
        import sys
        from ingest import health
        from ingest.settings import Settings
        with health.running(Settings(), "loop"):
            health.BARS.inc()
            print("ready", flush=True)
            sys.stdin.read()
    """
    child = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with child:
        assert child.stdout
        assert child.stdout.readline() == "ready\n"
        loop, recorder = health.processes(settings)
        assert (loop.role, loop.pid, loop.is_running) == ("loop", child.pid, True)
        assert loop.metrics["tapehouse_bars_total"] == 1
        assert not recorder.is_running
        child.send_signal(signal.SIGKILL)
    loop, _ = health.processes(settings)
    assert (loop.is_running, loop.stopped_at, loop.metrics) == (False, None, {})

    with health.running(settings, "loop"):
        assert [process.pid for process in health.processes(settings)] == [os.getpid()] * 2
