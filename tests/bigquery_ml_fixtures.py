"""A small dbt project with this project's macros, compiled for BigQuery without an account.

As a program: directory, variables, names of models that must be refused. Prints JSON: ``compiled``,
the SQL of every model, ``statements``, the CREATE MODEL of every `ml_model` that is not to be
refused, and ``refused``, the message for each of the others.
"""

import io
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import yaml
from dbt_fixtures import NO_ACCOUNT

ROOT = Path(__file__).resolve().parents[1]


def write_project(directory: Path, models: Mapping[str, str]) -> None:
    """Write a project of these models beside the project's own macros."""
    project = yaml.safe_load((ROOT / "dbt_project" / "dbt_project.yml").read_text())
    del project["models"], project["on-run-start"]
    (directory / "dbt_project.yml").write_text(yaml.safe_dump(project))
    for name in ("macros", "tests"):
        (directory / name).symlink_to(ROOT / "dbt_project" / name)
    (directory / "models").mkdir()
    for name, sql in models.items():
        (directory / "models" / f"{name}.sql").write_text(sql)


def compiled(directory: Path, refused: Sequence[str] = (), *, variables: str = "{}") -> Any:
    """Compile a project in a process of its own, with dbt's variables as text."""
    done = subprocess.run(
        [sys.executable, __file__, str(directory), variables, *refused],
        env=os.environ | NO_ACCOUNT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def main(directory: Path, variables: str, refused: list[str]) -> None:
    from dbt.cli.main import dbtRunner

    errors: list[str] = []
    dbt = dbtRunner(callbacks=[lambda event: _note(event, errors)])
    options = [
        *("--quiet", "--target", "bigquery", "--project-dir", str(directory)),
        *("--profiles-dir", str(ROOT), "--target-path", str(directory / "target")),
        *("--log-path", str(directory / "logs"), "--no-write-json", "--vars", variables),
    ]
    # Nothing here may ask the warehouse: with introspection allowed a query would fail.
    parsed = dbt.invoke(["compile", "--no-populate-cache", *options])
    if parsed.exception is not None:
        raise parsed.exception
    compiled = {result.node.name: result.node.compiled_code for result in parsed.result}
    models = sorted(
        result.node.name
        for result in parsed.result
        if result.node.config.materialized == "ml_model" and result.node.name not in refused
    )
    printed = io.StringIO()
    with redirect_stdout(printed):
        made = dbt.invoke(_statements(models, options))
        if not made.success:
            raise RuntimeError("\n".join(errors))
        messages = {}
        for name in refused:
            errors.clear()
            dbt.invoke(_statements([name], options))
            messages[name] = "\n".join(errors)
    found = {
        "compiled": compiled,
        "statements": json.loads(printed.getvalue().splitlines()[0]),
        "refused": messages,
    }
    print(json.dumps(found))


def _note(event: Any, errors: list[str]) -> None:
    if event.info.level == "error":
        errors.append(event.info.msg)


def _statements(names: list[str], options: list[str]) -> list[str]:
    return ["run-operation", "ml_statements", "--args", json.dumps({"names": names}), *options]


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3:])
