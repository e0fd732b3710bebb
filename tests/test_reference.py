"""The reference pages and the lineage are those that `make docs` would write now."""

from pathlib import Path
from typing import Any

from orchestration.reference import pages


def test_the_reference_pages_are_as_new_as_their_sources(
    manifest: dict[str, Any], project_root: Path
) -> None:
    docs = project_root / "docs"
    expected = pages(manifest)
    files = {path.relative_to(docs).as_posix() for path in (docs / "reference").iterdir()}
    # The page of BigQuery is written by `make test-bigquery`.
    assert (files - {"reference/bigquery.md"}) | {"lineage.svg"} == set(expected)
    old = [name for name, text in expected.items() if (docs / name).read_text() != text]
    assert old == [], "run `make docs` and commit docs"


def test_every_feature_and_label_has_its_row(manifest: dict[str, Any]) -> None:
    text = "".join(pages(manifest).values())
    missing = [
        f"{node['name']}.{name}"
        for node in manifest["nodes"].values()
        if node["resource_type"] == "model" and node["fqn"][1] in {"features", "labels"}
        for name, column in node["columns"].items()
        if column["config"]["meta"] and f"\n| `{name}` | " not in text
    ]
    assert missing == []


def test_every_table_has_its_row_and_its_box(manifest: dict[str, Any]) -> None:
    written = pages(manifest)
    names = [
        node["name"] for node in manifest["nodes"].values() if node["resource_type"] == "model"
    ]
    assert [name for name in names if f"| `{name}` | " not in written["reference/tables.md"]] == []
    assert [name for name in names if f">{name}</text>" not in written["lineage.svg"]] == []
