"""dbt in processes of its own, which share what the first of them has parsed and built."""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import NamedTemporaryFile

import pytest

ROOT = Path(__file__).resolve().parents[1]
PROJECT = ROOT / "dbt_project"
PARSED = ROOT / ".pytest_cache" / "dbt"
COMPILED = ROOT / ".pytest_cache" / "compiled"
#: Options on which it depends what is parsed.
PARSING = ("--vars", "--target")
#: Without the tests and unit tests of the models.
WITHOUT_TESTS = ("--exclude-resource-type", "test", "--exclude-resource-type", "unit_test")
#: The same to a command that knows no types of resources.
NOT_TESTS = ("--exclude", "resource_type:test", "resource_type:unit_test")
#: What dbt needs to render for BigQuery without an account.
OFFLINE_BIGQUERY = ("--target", "bigquery", "--no-populate-cache", "--no-introspect")
NO_ACCOUNT = {
    "TAPEHOUSE_BIGQUERY_PROJECT": "tapehouse",
    "TAPEHOUSE_BIGQUERY_METHOD": "oauth-secrets",
    "TAPEHOUSE_BIGQUERY_TOKEN": "offline",
}


def shared(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """A directory of this run of the tests that the first of its processes to ask for it fills."""
    root = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent
    made = root / f"shared-{name}"
    with (root / f"shared-{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            part = root / f"shared-{name}.part"
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir()
            make(part)
            part.rename(made)
    return made


def share_compiled(directory: Path) -> None:
    """Let `serving.manifest`, which knows by a hash what is unchanged, keep what it compiles."""
    COMPILED.mkdir(parents=True, exist_ok=True)
    (directory / "compiled").symlink_to(COMPILED)


def dbt(
    database: Path, *arguments: str, project: Path = PROJECT, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run a dbt command on a warehouse; its artifacts lie in `target` beside it.

    dbt parses anew where the path of the database is another. It is told the file's name alone and
    runs beside it, so that one parse, some seven seconds, does for all warehouses of a name.
    """
    target = database.parent / "target"
    target.mkdir(parents=True, exist_ok=True)
    settings = [arguments[at + 1] for at, word in enumerate(arguments) if word in PARSING]
    parsed, of_the_project = (
        PARSED / f"{hashlib.sha256(key.encode()).hexdigest()[:16]}.msgpack"
        for key in ("\n".join([str(each), database.name, *settings]) for each in (project, PROJECT))
    )
    own = target / "partial_parse.msgpack"
    # A copy of the project with some files changed is parsed as the project with them changed.
    if not own.exists() and (known := [each for each in (parsed, of_the_project) if each.exists()]):
        shutil.copy2(known[0], own)
    given = own.stat().st_mtime_ns if own.exists() else 0
    done = subprocess.run(
        [
            *(str(Path(sys.executable).with_name("dbt")), "--no-use-colors", *arguments),
            *("--project-dir", str(project), "--profiles-dir", str(ROOT)),
            *("--target-path", str(target), "--log-path", str(target)),
        ],
        cwd=database.parent,
        env=os.environ | {"TAPEHOUSE_DATABASE": database.name, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    if own.exists() and own.stat().st_mtime_ns != given:
        PARSED.mkdir(parents=True, exist_ok=True)
        with NamedTemporaryFile(dir=PARSED, delete=False) as part:
            part.write(own.read_bytes())
        Path(part.name).replace(parsed)
    return done


def run_dbt(database: Path, *arguments: str, **environment: str) -> str:
    """Run a dbt command on a warehouse, failing loudly; returns what it printed."""
    done = dbt(database, *arguments, **environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
