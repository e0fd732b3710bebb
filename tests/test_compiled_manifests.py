"""What dbt compiled is kept beside the warehouse, until anything it depends on changes."""

import json
import os
import shutil
from pathlib import Path

import pytest

from serving import manifest

SELECTION = ["--select", "+ml_order_flow"]


def key(project: Path, **variables: str) -> str:
    return manifest._inputs(Path("/x/tapehouse.duckdb"), SELECTION, project, variables)


def test_the_key_changes_with_every_input_and_with_nothing_else(
    project_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = tmp_path / "dbt_project"
    shutil.copytree(
        project_root / "dbt_project", project, ignore=shutil.ignore_patterns("target", "logs")
    )
    shutil.copy(project_root / "profiles.yml", tmp_path)
    first = key(project)
    (project / "target").mkdir()
    (project / "target" / "manifest.json").write_text("{}")
    os.utime(project / "dbt_project.yml")
    monkeypatch.setenv("TAPEHOUSE_DATABASE", "/elsewhere/tapehouse.duckdb")
    assert key(project) == first
    keys = [first, key(project, changed_from="x")]
    for path in ("models/signals/sig_order_flow.sql", "seeds/ensembles.csv", "dbt_project.yml"):
        with (project / path).open("a") as file:
            file.write("\n")
        keys.append(key(project))
    (project / "macros" / "another.sql").write_text("")
    keys.append(key(project))
    (tmp_path / "profiles.yml").write_text("other")
    keys.append(key(project))
    monkeypatch.setenv("TAPEHOUSE_MEMORY_LIMIT", "1GB")
    keys.append(key(project))
    assert len(set(keys)) == len(keys)


def test_a_kept_manifest_is_taken_and_only_the_newest_few_are_kept(tmp_path: Path) -> None:
    database = tmp_path / "tapehouse.duckdb"
    variables = {"strategies": manifest.strategies()}
    name = manifest._inputs(database, SELECTION, manifest.PROJECT, variables)
    for number in range(20):
        kept = tmp_path / "compiled" / f"{number}.json"
        manifest._keep(kept, "{}")
        os.utime(kept, (number, number))
    manifest._keep(tmp_path / "compiled" / f"{name}.json", json.dumps({"nodes": "kept"}))
    assert manifest.compiled(database, SELECTION) == {"nodes": "kept"}
    names = {path.stem for path in (tmp_path / "compiled").iterdir()}
    assert len(names) == manifest._MANIFESTS_KEPT
    assert {name, "19"} <= names
