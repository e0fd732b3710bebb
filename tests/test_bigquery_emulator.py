"""The emulator that stands in for BigQuery: the client talks to it, and it ends with its parent."""

import subprocess
from pathlib import Path

import bigquery_emulator as emulator
import pytest
from bigquery_emulator import Emulator


def test_the_client_gets_its_answers_from_the_emulator(bigquery_emulator: Emulator) -> None:
    client = bigquery_emulator.client()
    client.create_dataset("asked")
    client.query_and_wait("create table asked.numbers as select 1 as number, 'one' as word")
    rows = client.query_and_wait("select * from asked.numbers")
    assert [tuple(row) for row in rows] == [(1, "one")]


def test_the_emulator_ends_when_its_parent_does(tmp_path: Path) -> None:
    if not emulator.PYTHON.is_file():
        pytest.skip(f"the BigQuery emulator is not installed: no {emulator.PYTHON}")
    program = Path(emulator.__file__).with_name("bigquery_emulator_server.py")
    with subprocess.Popen(
        [emulator.PYTHON, program, tmp_path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as server:
        assert server.stdout is not None
        assert '"rest"' in server.stdout.readline()
        server.communicate(timeout=20)
    assert server.returncode == 0
