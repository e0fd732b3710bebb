"""`tapehouse models export`: a version's file in Cloud Storage, and what dbt needs to import it."""

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import duckdb
import google_crc32c
import numpy as np
import onnx
import pytest
from bigquery_ml_fixtures import compiled, write_project
from test_bigquery_ml import configured
from test_ml_lifecycle import change, database
from typer.testing import CliRunner

from ml import onnx_model
from orchestration.cli import app

__all__ = ["database"]


class Bucket:
    """A bucket of Cloud Storage; `answers` are statuses to give before working."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.answers: list[int] = []
        self.requests: list[str] = []


@contextmanager
def cloud_storage(bucket: Bucket) -> Iterator[str]:
    """Serve one bucket by Google's JSON interface on a free port; gives its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            query = parse_qs(urlsplit(self.path).query)
            bucket.requests.append(f"{self.command} {query['uploadType'][0]}")
            boundary = re.search(r'boundary="?([^";]+)', self.headers["Content-Type"])
            assert boundary is not None
            _, told, file, _ = body.split(f"--{boundary[1]}".encode())
            described = json.loads(told.split(b"\r\n\r\n", 1)[1])
            content = file.split(b"\r\n\r\n", 1)[1].removesuffix(b"\r\n")
            found = base64.b64encode(google_crc32c.Checksum(content).digest()).decode()
            if bucket.answers:
                self.answer(bucket.answers.pop(0), {"error": {"message": "not now"}})
            elif found != described["crc32c"]:
                self.answer(400, {"error": {"message": "checksum"}})
            elif described["name"] in bucket.files and query["ifGenerationMatch"] == ["0"]:
                self.answer(412, {"error": {"message": "it is there"}})
            else:
                bucket.files[described["name"]] = content
                self.answer(200, self.facts(described["name"]))

        def do_GET(self) -> None:
            bucket.requests.append(self.command)
            path, query = urlsplit(self.path).path, parse_qs(urlsplit(self.path).query)
            if path.endswith("/o"):
                names = [name for name in bucket.files if name.startswith(query["prefix"][0])]
                self.answer(200, {"items": [self.facts(name) for name in names]})
            else:
                self.answer(200, self.facts(unquote(path.rpartition("/")[2])))

        def do_DELETE(self) -> None:
            del bucket.files[unquote(urlsplit(self.path).path.rpartition("/")[2])]
            self.answer(200, {})

        def facts(self, name: str) -> dict[str, Any]:
            content = bucket.files[name]
            digest = base64.b64encode(google_crc32c.Checksum(content).digest()).decode()
            size = str(len(content))
            return {"name": name, "size": size, "generation": "1", "crc32c": digest}

        def answer(self, status: int, facts: dict[str, Any]) -> None:
            text = json.dumps(facts).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    found = Bucket()
    with cloud_storage(found) as address:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", address)
        yield found


def export(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["models", "export", "ml_test", *arguments])


def registered(database: Path) -> dict[str, Any]:
    with duckdb.connect(str(database), read_only=True) as connection:
        row = connection.execute(
            "select models.* from registry.models as models inner join registry.active_models "
            "as champions using (model_name, model_version)"
        ).df()
    found: dict[str, Any] = row.iloc[0].to_dict()
    return found


def test_a_champion_is_uploaded_once_and_imported_by_what_is_printed(
    database: Path, bucket: Bucket, tmp_path: Path
) -> None:
    bucket.answers = [503]
    done = export("--to", "gs://bucket/models/")
    again = export("--to", "gs://bucket/models")
    assert [done.exit_code, again.exit_code] == [0, 0], done.output
    assert done.stdout == again.stdout
    champion = registered(database)
    path = f"models/ml_test/{champion['onnx_sha256']}.onnx"
    assert bucket.files == {path: bytes(champion["onnx"])}
    assert bucket.requests == ["POST multipart"] * 3 + ["GET"]
    told = json.loads(done.stdout)["imported_models"]["ml_test"]
    assert told["path"] == f"gs://bucket/{path}"
    assert told["version"] == champion["model_version"]
    assert told["features"] == list(champion["features"])
    assert told["classes"] == ["false", "true"]
    assert {method for method, _, _ in told["calibration"]} == {"isotonic", "platt"}
    assert len(told["global_explanations"]) >= len(told["features"])

    (project := tmp_path / "project").mkdir()
    features = ", ".join(told["features"])
    model = configured(
        f"select {features}, is_up_5, split, label_end_at from ds_order_flow",
        model_type="LOGISTIC_REG",
        input_label_cols=["is_up_5"],
    )
    asked = "{{ ml_predict(ref('ml_test'), 'select * from rows_') }}"
    version = "select {{ ml_model_version(ref('ml_test')) }} as version"
    write_project(project, {"ml_test": model, "asked": asked, "version": version})
    found = compiled(project, variables=done.stdout.strip())
    assert "model_type = 'ONNX'" in found["statements"]["ml_test"]
    assert f"model_path = 'gs://bucket/{path}'" in found["statements"]["ml_test"]
    assert f"'{told['version']}'" in found["compiled"]["version"]
    cast = re.findall(r"ifnull\(cast\((\w+) as float64\)", found["compiled"]["asked"])
    assert cast == told["features"]

    uploaded = onnx_model.session(bucket.files[path])
    rows = np.random.default_rng(1).normal(size=(50, len(cast))).astype(np.float32)
    own = onnx_model.session(bytes(champion["onnx"]))
    assert (onnx_model.outputs(uploaded, rows) == onnx_model.outputs(own, rows)).all()


def test_another_file_at_the_address_is_left_alone(database: Path, bucket: Bucket) -> None:
    path = f"ml_test/{registered(database)['onnx_sha256']}.onnx"
    bucket.files[path] = b"another"
    done = export("--to", "gs://bucket")
    assert isinstance(done.exception, RuntimeError)
    assert str(done.exception) == f"gs://bucket/{path} is another file of 7 bytes: remove it"
    assert bucket.files == {path: b"another"}


@pytest.mark.parametrize(
    ("to", "answers", "message"),
    [
        ("bucket/models", [], "bucket/models is no address as gs://bucket/folder"),
        ("gs://", [], "gs:// is no address as gs://bucket/folder"),
        ("gs://bucket", [403], "not now"),
    ],
)
def test_what_cannot_be_stored_says_why(
    database: Path, bucket: Bucket, to: str, answers: list[int], message: str
) -> None:
    bucket.answers = answers
    done = export("--to", to)
    assert message in str(done.exception)
    assert bucket.files == {}


def test_a_file_that_is_not_whole_or_beyond_the_limits_is_not_uploaded(
    database: Path, bucket: Bucket
) -> None:
    champion = registered(database)
    version = champion["model_version"]
    model = onnx.load_from_string(bytes(champion["onnx"]))
    model.opset_import[0].version = 18
    beyond = model.SerializeToString()
    sha256 = hashlib.sha256(beyond).hexdigest()
    change(
        database,
        f"update registry.models set onnx = from_hex('{beyond.hex()}') "
        f"where model_version = '{version}'",
    )
    assert "sha256" in str(export("--to", "gs://bucket").exception)
    change(
        database,
        f"update registry.models set onnx_sha256 = '{sha256}' where model_version = '{version}'",
    )
    assert "BigQuery ML imports at most" in str(export("--to", "gs://bucket").exception)
    assert bucket.requests == []
