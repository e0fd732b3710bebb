"""The rules of the project that can be read off its files and its manifest."""

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

PACKAGES = ["ingest", "ml", "serving", "orchestration"]
FOLDERS = {
    *PACKAGES,
    *("dbt_project", "tests", "benchmarks", "docs"),
    *(".git", ".ci", ".venv", ".venv-emulator", "data", "logs", "tapehouse.egg-info"),
    *(".mypy_cache", ".ruff_cache", ".pytest_cache", ".hypothesis"),
}
FILES = {
    *("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "Makefile"),
    *("pyproject.toml", "profiles.yml", "requirements.lock", ".gitignore", ".editorconfig"),
    *(".sqlfluff", ".user.yml"),
}
LAYERS = {
    "staging": ["stg_"],
    "intermediate": ["int_"],
    "features": ["feat_"],
    "labels": ["lbl_"],
    "datasets": ["ds_"],
    "models": ["ml_"],
    "predictions": ["pred_"],
    "signals": ["sig_"],
    "trading": ["trd_"],
    "quality": ["qlt_"],
}
LAST_LINE = re.compile(
    r"\nselect \* from \w+\n?"
    r"(\n\n\{% if is_incremental\(\) %\} where \w+ >= \{\{ changed \}\} \{% endif %\}\n?)?\Z"
)
READS = {
    "staging": set(),
    "intermediate": {"staging", "intermediate"},
    "features": {"staging", "intermediate", "features"},
    "labels": {"staging", "intermediate", "labels"},
    "datasets": {"staging", "intermediate", "features", "labels", "datasets"},
    "models": {"datasets", "models", "predictions"},
    "predictions": {"datasets", "models", "predictions"},
    "signals": {"intermediate", "labels", "datasets", "models", "predictions", "signals"},
    "trading": {
        *("intermediate", "features", "labels", "datasets", "models"),
        *("predictions", "signals", "trading"),
    },
    "quality": {"datasets", "models", "quality"},
}

WITHOUT_SYMBOLS = {
    *("sig_thresholds", "sig_threshold_candidates"),
    *("trd_sharpe", "trd_candidates", "trd_overfitting", "trd_verdict"),
}


KEY = {"exchange", "market", "symbol", "interval_minutes", "opened_at", "available_at"}


def python_files(root: Path, *folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (root / folder).rglob("*.py"))


def models(manifest: dict[str, Any]) -> list[dict[str, Any]]:
    return [node for node in manifest["nodes"].values() if node["resource_type"] == "model"]


def layer(node: dict[str, Any]) -> str:
    return node["fqn"][1]


def imported_packages(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module.split(".")[0]


def test_the_top_level_holds_only_what_the_design_names(project_root: Path) -> None:
    folders = {path.name for path in project_root.iterdir() if path.is_dir()}
    files = {path.name for path in project_root.iterdir() if path.is_file()}
    assert folders - FOLDERS == set()
    assert files - FILES == set()
    assert {*PACKAGES, "dbt_project", "tests", "benchmarks", "docs"} - folders == set()


def test_imports_point_from_orchestration_to_serving_to_ml_to_ingest(project_root: Path) -> None:
    wrong = [
        f"{path.relative_to(project_root)} imports {name}"
        for position, package in enumerate(PACKAGES)
        for path in python_files(project_root, package)
        for name in imported_packages(path)
        if name in PACKAGES[position + 1 :]
    ]
    assert wrong == []


def opens_a_file(path: Path) -> bool:
    nodes = list(ast.walk(ast.parse(path.read_text())))
    in_memory = [
        node.func
        for node in nodes
        if isinstance(node, ast.Call)
        and [ast.unparse(argument) for argument in node.args] in ([], ["':memory:'"])
    ]
    return any(
        isinstance(node, ast.Attribute)
        and ast.unparse(node) == "duckdb.connect"
        and node not in in_memory
        for node in nodes
    )


def test_only_the_warehouse_module_opens_a_database_file(project_root: Path) -> None:
    opening = [
        str(path.relative_to(project_root))
        for path in python_files(project_root, *PACKAGES)
        if opens_a_file(path)
    ]
    assert opening == ["ingest/warehouse.py"]


def test_no_code_swallows_every_exception_or_runs_untrusted_bytes(project_root: Path) -> None:
    banned = re.compile(
        r"except (Base)?Exception\b|\bpickle\b|\bjoblib\b|(?<![.\w])eval\(|yaml\.load\("
    )
    found = [
        f"{path.relative_to(project_root)}: {match.group(0)}"
        for path in python_files(project_root, *PACKAGES, "benchmarks")
        for match in banned.finditer(path.read_text())
    ]
    assert found == []


def test_every_model_lies_in_the_folder_of_its_layer_and_carries_its_prefix(
    manifest: dict[str, Any],
) -> None:
    wrong = [
        node["original_file_path"]
        for node in models(manifest)
        if not any(node["name"].startswith(prefix) for prefix in LAYERS.get(layer(node), []))
    ]
    assert wrong == []


def test_every_model_reads_only_layers_before_it(manifest: dict[str, Any]) -> None:
    nodes = manifest["nodes"]
    wrong = [
        f"{node['name']} reads {parent}"
        for node in models(manifest)
        for parent in node["depends_on"]["nodes"]
        if (
            layer(node) != "staging"
            if parent.startswith("source.")
            else parent.startswith("model.") and layer(nodes[parent]) not in READS[layer(node)]
        )
    ]
    assert wrong == []


def test_every_model_is_described_beside_its_sql(
    manifest: dict[str, Any], project_root: Path
) -> None:
    wrong = []
    for node in models(manifest):
        sql = project_root / "dbt_project" / node["original_file_path"]
        if not sql.with_suffix(".yml").is_file():
            wrong.append(f"{node['name']} has no {sql.with_suffix('.yml').name} beside it")
        if not re.search(r"One row per [^.]+\.$", node["description"].strip()):
            wrong.append(f"{node['name']}'s description does not end with 'One row per ….'")
        wrong += [
            f"{node['name']}.{name} has no description"
            for name, column in node["columns"].items()
            if not column["description"].strip()
        ]
        if not node["columns"]:
            wrong.append(f"{node['name']} documents no column")
    assert wrong == []


def test_features_labels_and_datasets_have_enforced_contracts(manifest: dict[str, Any]) -> None:
    wrong = [
        node["name"]
        for node in models(manifest)
        if layer(node) in {"features", "labels", "datasets"} and not node["contract"]["enforced"]
    ]
    assert wrong == []


def test_every_feature_and_label_says_how_far_it_looks(manifest: dict[str, Any]) -> None:
    wrong = [
        f"{node['name']}.{name}: {sorted(column['config']['meta'])}"
        for node in models(manifest)
        if layer(node) in {"features", "labels"}
        for name, column in node["columns"].items()
        if name not in KEY
        and set(column["config"]["meta"]) - {"horizon_bars"}
        not in ({"window_bars"}, {"window_minutes"}, {"is_unbounded"})
    ]
    assert wrong == []


def test_every_feature_and_label_says_when_it_is_null(manifest: dict[str, Any]) -> None:
    wrong = [
        f"{node['name']}.{name}: {column['description']}"
        for node in models(manifest)
        if layer(node) in {"features", "labels"}
        for name, column in node["columns"].items()
        if not re.search(r"(^|[.)] )(Never n|N)ull\b", column["description"])
    ]
    assert wrong == []


def test_every_layer_of_logic_has_unit_tests_with_two_symbols(manifest: dict[str, Any]) -> None:
    tested: dict[str, set[str]] = {}
    for test in manifest["unit_tests"].values():
        rows = yaml.safe_dump([given["rows"] for given in test["given"]])
        tested.setdefault(test["model"], set()).update(re.findall(r"\b[A-Z]{2,6}USDT\b", rows))
    wrong = [
        f"{node['name']}: unit tests with symbols {sorted(tested.get(node['name'], set()))}"
        for node in models(manifest)
        if layer(node) in {"features", "labels", "signals", "trading"}
        and node["name"] not in WITHOUT_SYMBOLS
        and len(tested.get(node["name"], set())) < 2
    ]
    assert wrong == []


def expected_columns(test: dict[str, Any]) -> set[str]:
    """Columns of which a unit test expects a value that is not NULL."""
    rows = test["expect"]["rows"]
    if isinstance(rows, str):
        return {name for value, name in re.findall(r"(\S+) as (\w+)", rows) if value != "null"}
    return {name for row in rows for name, value in row.items() if value is not None}


def test_every_column_from_bars_to_labels_has_an_expected_value(manifest: dict[str, Any]) -> None:
    tested: dict[str, set[str]] = {}
    for test in manifest["unit_tests"].values():
        tested.setdefault(test["model"], set()).update(expected_columns(test))
    series = {*KEY, "closed_at", "bars_in_run", "series_key"}
    wrong = [
        f"{node['name']}.{name}"
        for node in models(manifest)
        if layer(node) in {"intermediate", "features", "labels"}
        for name in sorted(set(node["columns"]) - series - tested.get(node["name"], set()))
    ]
    assert wrong == []


def test_models_read_top_to_bottom_and_leave_dialects_to_macros(
    manifest: dict[str, Any],
) -> None:
    wrong = []
    for node in models(manifest):
        lines = node["raw_code"].rstrip().splitlines()
        if not LAST_LINE.search(node["raw_code"]):
            wrong.append(f"{node['name']} does not end with 'select * from <last>'")
        if len(lines) > 150:
            wrong.append(f"{node['name']} has {len(lines)} lines")
        wrong += [
            f"{node['name']} mentions {word}"
            for word in re.findall(r"\btarget\b|adapter\.dispatch", node["raw_code"])
        ]
    assert wrong == []


def test_features_and_labels_are_refreshed_from_the_first_change_on(
    manifest: dict[str, Any],
) -> None:
    wrong = []
    for node in models(manifest):
        if layer(node) not in {"intermediate", "features", "labels"}:
            continue
        code, config = node["raw_code"], node["config"]
        if config["materialized"] == "view":
            if re.search(r"\bover\b|group by|earlier\(|lag_in_run\(", code):
                wrong.append(f"{node['name']}: a view with windows computes its whole history")
        elif config["materialized"] != "incremental":
            wrong.append(f"{node['name']} is a {config['materialized']}")
        elif "changed_from()" not in code or code.count("is_incremental()") < 2:
            wrong.append(f"{node['name']} does not filter by what changed")
        if "in_lookback(" in code and not {"lookback_bars", "lookback_minutes"} & set(
            config["meta"]
        ):
            wrong.append(f"{node['name']} does not say how far it looks back")
    assert wrong == []


def test_macros_do_not_read_the_model_they_serve(project_root: Path) -> None:
    found = [
        f"{path.name}: {word}"
        for path in sorted((project_root / "dbt_project" / "macros").rglob("*.sql"))
        if "materialization" not in path.read_text()
        for word in re.findall(r"is_incremental\(\)", path.read_text())
    ]
    assert found == []


def test_telemetry_is_off_in_the_projects_own_configuration(project_root: Path) -> None:
    dbt = yaml.safe_load((project_root / "dbt_project" / "dbt_project.yml").read_text())
    dagster = yaml.safe_load((project_root / "orchestration" / "dagster.yaml").read_text())
    landing = (project_root / "ingest" / "landing.py").read_text()
    assert dbt["flags"]["send_anonymous_usage_stats"] is False
    assert dagster["telemetry"]["enabled"] is False
    assert '"RUNTIME__DLTHUB_TELEMETRY"] = "false"' in landing


@pytest.mark.parametrize(
    ("name", "least"), [("requirements.lock", 100), ("tests/emulator.lock", 50)]
)
def test_the_lock_is_hashed_and_names_no_host(project_root: Path, name: str, least: int) -> None:
    lock = (project_root / name).read_text()
    pinned = re.findall(r"^[A-Za-z0-9_.\-\[\]]+==", lock, re.MULTILINE)
    assert len(pinned) > least
    assert not re.search(r"https?://|index-url|find-links", lock)
    blocks = re.split(r"\n(?=[A-Za-z0-9])", lock)
    assert [block.splitlines()[0] for block in blocks if "--hash=sha256:" not in block] == []


def test_every_dependency_is_in_the_lock(project_root: Path) -> None:
    project = tomllib.loads((project_root / "pyproject.toml").read_text())["project"]
    extras = [name for group in project["optional-dependencies"].values() for name in group]
    wanted = [re.split(r"[\[<>=]", name)[0].lower() for name in project["dependencies"] + extras]
    lock = (project_root / "requirements.lock").read_text().lower()
    assert [name for name in wanted if not re.search(rf"^{name}(\[.*\])?==", lock, re.M)] == []


def test_the_sql_files_are_named_in_lower_case(project_root: Path) -> None:
    wrong = [
        str(path.relative_to(project_root))
        for path in sorted((project_root / "dbt_project").rglob("*.sql"))
        if "target" not in path.parts and not re.fullmatch(r"[a-z0-9_]+\.sql", path.name)
    ]
    assert wrong == []
