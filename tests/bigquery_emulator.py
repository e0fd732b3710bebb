"""Google's BigQuery as tests see it: an emulator on the loopback interface.

The emulator lives in an environment of its own, because it needs an older DuckDB: `make test`
makes it, `TAPEHOUSE_EMULATOR` names the python of another one. Where neither is, its tests skip.
"""

import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from google.auth.credentials import AnonymousCredentials
from google.cloud import bigquery

ROOT = Path(__file__).resolve().parents[1]
PYTHON = Path(os.environ.get("TAPEHOUSE_EMULATOR", ROOT / ".venv-emulator" / "bin" / "python"))
STOPS_WITHIN_SECONDS = 20


@dataclass(frozen=True)
class Emulator:
    """Where an emulator listens: the REST address, host and port of the Storage API, the project.

    `bucket_root` is the directory that holds what `gs://` addresses mean to it.
    """

    rest: str
    grpc: str
    project: str
    bucket_root: Path

    def environment(self, dataset: str) -> dict[str, str]:
        """Return the settings that make dbt, the client and Tapehouse use it."""
        return {
            "BIGQUERY_EMULATOR_HOST": self.rest,
            "BIGQUERY_STORAGE_EMULATOR_HOST": self.grpc,
            "TAPEHOUSE_BIGQUERY_METHOD": "oauth-secrets",
            "TAPEHOUSE_BIGQUERY_TOKEN": "emulated",
            "TAPEHOUSE_BIGQUERY_PROJECT": self.project,
            "TAPEHOUSE_BIGQUERY_DATASET": dataset,
        }

    def client(self) -> bigquery.Client:
        return bigquery.Client(
            project=self.project,
            credentials=AnonymousCredentials(),
            client_options={"api_endpoint": self.rest},
        )


@pytest.fixture(scope="session")
def bigquery_emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    """An emulator of the session's own on free ports; each test names datasets of its own."""
    if not PYTHON.is_file():
        pytest.skip(f"the BigQuery emulator is not installed: no {PYTHON} (make .venv-emulator)")
    working = tmp_path_factory.mktemp("emulator")
    with (working / "log").open("w+") as log:
        server = subprocess.Popen(
            [PYTHON, Path(__file__).with_name("bigquery_emulator_server.py"), working],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
        assert server.stdin is not None
        assert server.stdout is not None
        first_line = server.stdout.readline()
        if not first_line:
            log.seek(0)
            pytest.fail(f"the BigQuery emulator did not start:\n{log.read()[-3000:]}")
        try:
            yield Emulator(**json.loads(first_line), bucket_root=working)
        finally:
            server.stdin.close()
            try:
                server.wait(STOPS_WITHIN_SECONDS)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()
            server.stdout.close()
