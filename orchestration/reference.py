"""The reference pages and the lineage under `docs`, from dbt's manifest and the command."""

import inspect
import json
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import typer
import yaml
from typer.cli import get_docs_for_click

from ingest.settings import PROJECT_ROOT, Settings
from orchestration.cli import app
from orchestration.lineage import picture

DIRECTORY = PROJECT_ROOT / "docs"
PROJECT = PROJECT_ROOT / "dbt_project"
LAYERS = {
    "staging": "what landed, typed, one row per natural key",
    "intermediate": "bars, and what several features share",
    "features": "see [features](features.md)",
    "labels": "see [labels](labels.md)",
    "datasets": "what models learn from, one row per symbol and bar, with split and fold",
    "quality": "how good the features of every dataset are",
    "models": "machine-learning models, trained by `dbt build`",
    "predictions": "what the models say of bars they did not learn from",
    "signals": "thresholds and signals",
    "trading": "positions, costs, evaluation and verdict",
}
NOTICE = "<!-- Written by `make docs`; edit the sources it names instead. -->\n"
ABOUT_FEATURES = """\
Every feature, from `dbt_project/models/features/*.yml`. One table per family, one row per reported
bar: `exchange`, `market`, `symbol`, `interval_minutes` and `opened_at` name it, `available_at` says
when the row could be known.

*Window* is how many bars of its series a value depends on, its own among them: no older bar changes
it by a single bit. r is a log return; α is the weight of the newest value. `…_rel` is the twin
without scale.
"""  # noqa: RUF001
ABOUT_LABELS = """\
Every label, from `dbt_project/models/labels/*.yml`. A label looks only at the bars after its own,
up to its *horizon*, in units that may depend on a *window* of bars up to its own. `…_end_at` is the
close of the last bar it looks at; purge and embargo are derived from it.
"""
ABOUT_TABLES = """\
In the order in which rows move. A layer reads only those before it. With every column, and the
lineage, in the browser: `dbt docs generate --project-dir dbt_project`, then
`dbt docs serve --project-dir dbt_project`; in Dagster: `tapehouse ui`.
"""
ABOUT_VARIABLES = """\
In `dbt_project/dbt_project.yml`, or for one run with `--vars`. After a change rebuild with
`dbt build --full-refresh`.
"""


def pages(manifest: Mapping[str, Any]) -> dict[str, str]:
    """Return the text of every page.

    Parameters
    ----------
    manifest : mapping
        What ``dbt parse`` writes as ``manifest.json``.

    Returns
    -------
    dict of str to str
        Markdown, and the picture of the lineage, by the path of the file under `docs`.
    """
    return {
        "lineage.svg": picture(manifest),
        "reference/features.md": features(manifest),
        "reference/labels.md": labels(manifest),
        "reference/tables.md": tables(manifest),
        "reference/configuration.md": configuration(manifest),
        "reference/cli.md": command_line(),
    }


def features(manifest: Mapping[str, Any]) -> str:
    """Return the page of the features: definition, unit, window and nulls, family by family."""
    parts = [f"{NOTICE}# Features\n", ABOUT_FEATURES]
    for node in _models(manifest, "features"):
        parts.append(f"## {node['name'].removeprefix('feat_')}\n")
        parts.append(f"`{node['name']}`: {_text(node['description'])}\n")
        parts.append(
            _table(
                ["Column", "Definition and unit", "Window", "NULL"],
                (
                    [f"`{column['name']}`", *_definition(column), _window(column)]
                    for column in _values(node)
                ),
                order=[0, 1, 3, 2],
            )
        )
    return "\n".join(parts)


def labels(manifest: Mapping[str, Any]) -> str:
    """Return the page of the labels: definition, unit, horizon, window and nulls."""
    parts = [f"{NOTICE}# Labels\n", ABOUT_LABELS]
    for node in _models(manifest, "labels"):
        parts.append(f"## {node['name'].removeprefix('lbl_')}\n")
        parts.append(f"`{node['name']}`: {_text(node['description'])}\n")
        parts.append(
            _table(
                ["Column", "Definition and unit", "Horizon", "Window", "NULL"],
                (
                    [
                        f"`{column['name']}`",
                        *_definition(column),
                        str(column["config"]["meta"].get("horizon_bars", 0)),
                        _window(column),
                    ]
                    for column in _values(node)
                ),
                order=[0, 1, 3, 4, 2],
            )
        )
    return "\n".join(parts)


def tables(manifest: Mapping[str, Any]) -> str:
    """Return the page of the tables: layer by layer, what a row is and what the table holds."""
    parts = [
        f"{NOTICE}# Tables\n",
        ABOUT_TABLES,
        "## raw\n\nAppend-only, as ingest lands it.\n",
        _described(sorted(manifest["sources"].values(), key=_name)),
    ]
    for layer, meaning in LAYERS.items():
        parts.append(f"## {layer}\n\n{meaning[0].upper()}{meaning[1:]}.\n")
        parts.append(_described(_models(manifest, layer)))
    seeds = _resources(manifest, "seed")
    if seeds:
        parts.append("## seeds\n\nRows of the project itself, in `dbt_project/seeds`.\n")
        parts.append(_described(seeds))
    return "\n".join(parts)


def configuration(manifest: Mapping[str, Any]) -> str:
    """Return the page of what can be set: dbt's variables, seeds and environment variables."""
    parts = [
        f"{NOTICE}# Configuration\n",
        "## Variables of the warehouse\n",
        ABOUT_VARIABLES,
        _table(
            ["Variable", "Default", "Meaning"],
            ([f"`{name}`", f"`{default}`", meaning] for name, default, meaning in _variables()),
        ),
    ]
    for seed in _resources(manifest, "seed"):
        parts.append(f"## Seed `{seed['name']}`\n")
        parts.append(f"`dbt_project/{seed['original_file_path']}`: {_text(seed['description'])}\n")
        parts.append(
            _table(
                ["Column", "Meaning"],
                (
                    [f"`{column['name']}`", _text(column["description"])]
                    for column in seed["columns"].values()
                ),
            )
        )
    parts += [
        "## Environment variables\n",
        "Every Tapehouse process reads these; lists are written with commas.\n",
        _table(["Variable", "Default", "Meaning"], _settings()),
        "dbt's own connection (`profiles.yml`) reads these:\n",
        _table(["Variable", "Default", "Sets"], _profile()),
    ]
    return "\n".join(parts)


def command_line() -> str:
    """Return the page of the `tapehouse` command, by typer's own generator."""
    command = typer.main.get_command(app)
    context = typer.Context(command, info_name="tapehouse")
    text = get_docs_for_click(obj=command, ctx=context, name="tapehouse", title="The command")
    return f"{NOTICE}{text.strip()}\n"


def parsed_manifest() -> dict[str, Any]:
    """Parse the dbt project and return its manifest."""
    with TemporaryDirectory(prefix="tapehouse-docs-") as directory:
        command = [
            *(str(Path(sys.executable).with_name("dbt")), "--quiet", "parse", "--no-partial-parse"),
            *("--project-dir", str(PROJECT), "--profiles-dir", str(PROJECT_ROOT)),
            *("--target-path", directory, "--log-path", directory),
        ]
        subprocess.run(command, check=True)
        manifest: dict[str, Any] = json.loads((Path(directory) / "manifest.json").read_text())
        return manifest


def main() -> None:
    """Write every page."""
    (DIRECTORY / "reference").mkdir(parents=True, exist_ok=True)
    for name, text in pages(parsed_manifest()).items():
        (DIRECTORY / name).write_text(text)


def _name(node: Mapping[str, Any]) -> str:
    return str(node["name"])


def _resources(manifest: Mapping[str, Any], kind: str) -> list[dict[str, Any]]:
    nodes = manifest["nodes"].values()
    return sorted((node for node in nodes if node["resource_type"] == kind), key=_name)


def _models(manifest: Mapping[str, Any], layer: str) -> list[dict[str, Any]]:
    return [node for node in _resources(manifest, "model") if node["fqn"][1] == layer]


def _values(node: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Columns that say how far they look: those that are not the key of the row."""
    return (column for column in node["columns"].values() if column["config"]["meta"])


def _definition(column: Mapping[str, Any]) -> tuple[str, str]:
    """What a column is, and when it is NULL: the sentences that begin so, and what follows them."""
    sentences = re.split(r"(?<=[.)]) (?=[A-Z(])", _text(column["description"]))
    nulls = [part for part in sentences if re.match(r"(Never n|N)ull\b", part)]
    return " ".join(part for part in sentences if part not in nulls), " ".join(nulls)


def _window(column: Mapping[str, Any]) -> str:
    meta = column["config"]["meta"]
    if "window_minutes" in meta:
        days, minutes = divmod(meta["window_minutes"], 1440)
        return f"{days} d" if days and not minutes else f"{meta['window_minutes']} min"
    return str(meta.get("window_bars", "all"))


def _described(nodes: Iterable[Mapping[str, Any]]) -> str:
    rows = []
    for node in nodes:
        text, _, grain = _text(node["description"]).rpartition("One row per ")
        rows.append([f"`{node['name']}`", grain.rstrip("."), text.strip()])
    return _table(["Table", "One row per", "Holds"], rows)


def _variables() -> Iterator[tuple[str, str, str]]:
    """Name, default and comment of each of dbt's variables; a comment holds until the next."""
    text = (PROJECT / "dbt_project.yml").read_text()
    defaults = yaml.safe_load(text)["vars"]
    comments: list[str] = []
    is_new = True
    for line in text.partition("\nvars:\n")[2].splitlines():
        if line.startswith("  #"):
            comments = comments if is_new else []
            comments.append(line.strip(" #"))
            is_new = True
        elif found := re.match(r"  (\w+):", line):
            default = yaml.safe_dump(
                defaults[found[1]], default_flow_style=True, sort_keys=False, width=1000
            )
            yield found[1], default.removesuffix("...\n").strip(), " ".join(comments)
            is_new = False
        elif line and not line.startswith(" "):
            return


def _settings() -> Iterator[list[str]]:
    meanings = dict(
        re.findall(r"^(\w+) : .*\n((?:    .*\n?)+)", inspect.cleandoc(Settings.__doc__ or ""), re.M)
    )
    for name, field in Settings.model_fields.items():
        default = field.default
        if isinstance(default, Path):
            default = default.relative_to(PROJECT_ROOT)
        if isinstance(default, list):
            default = ",".join(default)
        yield [
            f"`TAPEHOUSE_{name.upper()}`",
            "" if default is None else f"`{default}`",
            _text(meanings[name]).replace("``", "`"),
        ]


def _profile() -> Iterator[list[str]]:
    text = (PROJECT_ROOT / "profiles.yml").read_text()
    for key, name, default in re.findall(
        r"(\w+): \"\{\{ env_var\('(\w+)'(?:, (.*?))?\) \}\}", text
    ):
        yield [f"`{name}`", f"`{default}`" if default else "none: dbt needs it", f"`{key}`"]


def _text(markdown: str) -> str:
    return " ".join(markdown.split())


def _table(header: list[str], rows: Iterable[list[str]], order: list[int] | None = None) -> str:
    lines = [header, ["---"] * len(header)]
    for row in rows:
        cells = [row[position] for position in order] if order else row
        lines.append([cell.replace("|", "\\|") for cell in cells])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


if __name__ == "__main__":
    main()
