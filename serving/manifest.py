"""What dbt's manifest says: the SQL of a model's ancestors, in the order in which it runs."""

import csv
import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from graphlib import TopologicalSorter
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import duckdb

from ingest.settings import PROJECT_ROOT

PROJECT = PROJECT_ROOT / "dbt_project"
# What dbt reads of a project, and not what it writes there.
_FOLDERS = ("macros", "models", "seeds", "snapshots", "analyses", "tests")
_MANIFESTS_KEPT = 8


class CompilationError(RuntimeError):
    """Dbt could not compile the project."""


@dataclass(frozen=True)
class Source:
    """A raw table that models read.

    Parameters
    ----------
    schema : str
        The schema it lies in.
    relation : str
        Quoted name as the compiled SQL writes it: ``"database"."schema"."table"``.
    event_time : str
        The column that says when a row happened (dbt's ``event_time``).
    lookback_minutes : int
        How long before the rows that models ask for a row may have happened that decides them
        (``meta.lookback_minutes``): the staleness limit of a slower series, else 0.
    """

    schema: str
    relation: str
    event_time: str
    lookback_minutes: int

    @property
    def name(self) -> str:
        """The table's name."""
        return self.relation.rpartition(".")[2].strip('"')


@dataclass(frozen=True)
class Model:
    """A model of the project, compiled.

    Parameters
    ----------
    name : str
        The model's name.
    schema : str
        The schema it lies in.
    relation : str
        Quoted name as the compiled SQL of its readers writes it.
    is_view : bool
        Whether it is built as a view, and no rows of it are kept live (``meta.is_kept``).
    sql : str
        The compiled SELECT.
    parents : tuple of str
        Relations of the models and sources that it reads.
    lookback_bars, lookback_minutes : int
        How far before a row the rows lie that it reads of its parents (``meta.lookback_bars`` and
        ``meta.lookback_minutes``); the larger counts, and neither is 0.
    lookback_rows : int
        Of each symbol, how many rows of its parents before a row decide it if no more do
        (``meta.lookback_rows``); 0 is not declared.
    grain_minutes : int
        What the start of its rows is cut to (``meta.grain_minutes``): its event time, where it is
        no bar, or else the moment that a refresh of bars begins with; 0 is not cut.
    event_time : str or None
        The column that says when a row happened; None where the model declares none.
    windows : tuple of (str, int, int)
        Columns with the bars, itself among them, and the minutes that decide a value
        (``meta.window_bars`` and ``meta.window_minutes`` of the column; 0 is not declared).
    unbounded : tuple of str
        Columns that depend on all of the past (``meta.is_unbounded``).
    reads_other_symbols : bool
        Whether a row depends on rows of other symbols (``meta.reads_other_symbols``).
    """

    name: str
    schema: str
    relation: str
    is_view: bool
    sql: str
    parents: tuple[str, ...]
    lookback_bars: int
    lookback_minutes: int
    lookback_rows: int = 0
    grain_minutes: int = 0
    event_time: str | None = None
    windows: tuple[tuple[str, int, int], ...] = ()
    unbounded: tuple[str, ...] = ()
    reads_other_symbols: bool = False

    def lookback(self, interval_minutes: int) -> int:
        """Return the minutes before a row that it reads of its parents."""
        return max(self.lookback_bars * interval_minutes, self.lookback_minutes)

    def lookback_of(self, columns: Iterable[str], interval_minutes: int) -> int:
        """Return the minutes before a row that it reads of its parents for some columns."""
        declared = self.lookback(interval_minutes)
        known = {
            name: max((bars - 1) * interval_minutes, minutes)
            for name, bars, minutes in self.windows
        }
        return min(declared, max((known.get(name, declared) for name in columns), default=0))


@dataclass(frozen=True)
class Lineage:
    """A model and everything it is made of.

    Parameters
    ----------
    database : str
        The catalogue that the compiled SQL names.
    sources : tuple of Source
        The raw tables read.
    models : tuple of Model
        Ancestors before descendants; the model itself is last.
    """

    database: str
    sources: tuple[Source, ...]
    models: tuple[Model, ...]

    @property
    def schemas(self) -> list[str]:
        """The schemas of all tables."""
        return sorted(
            {part.schema for part in self.sources} | {part.schema for part in self.models}
        )

    def lookbacks(self, interval_minutes: int) -> dict[str, int]:
        """Return how many minutes of each source decide a bar: the longest sum along a path.

        Parameters
        ----------
        interval_minutes : int
            Length of the bars of the models that are asked for.

        Returns
        -------
        dict of str to int
            Minutes before the bar opened, by the source's relation.
        """
        minutes: dict[str, int] = {}
        for model in reversed(self.models):
            reach = minutes.get(model.relation, 0) + model.lookback(interval_minutes)
            for parent in model.parents:
                minutes[parent] = max(minutes.get(parent, 0), reach)
        return {
            source.relation: minutes[source.relation] + source.lookback_minutes
            for source in self.sources
        }


def compiled_manifest(
    database: Path, models: Sequence[str], *, project: Path = PROJECT
) -> dict[str, Any]:
    """Compile what machine-learning models select from, as a full refresh.

    Dbt connects to an empty file of the same name in a directory of its own: the compiled SQL
    names the warehouse's catalogue, and the warehouse is neither opened nor held.

    Parameters
    ----------
    database : Path
        The warehouse file; only its name matters here.
    models : sequence of str
        Names of the machine-learning models; their ancestors are compiled, not they themselves.
    project : Path
        The dbt project; `profiles.yml` lies in the directory above it.

    Returns
    -------
    dict
        The content of `manifest.json`, each of the ancestors with its ``compiled_code``.

    Raises
    ------
    CompilationError
        If dbt refuses the project; the message is dbt's own.
    """
    selection = ("--select", *(f"+{model}" for model in models), "--exclude", *models)
    return compiled(database, selection, project=project)


def compiled(
    database: Path,
    selection: Sequence[str],
    *,
    project: Path = PROJECT,
    changed_from: str | None = None,
) -> dict[str, Any]:
    """Compile a selection of models as a full refresh, or as a refresh since a moment.

    Of the datasets of strategies, which dbt knows as one model, each becomes a node of its own.

    Parameters
    ----------
    database : Path
        The warehouse file; only its name matters here.
    selection : sequence of str
        Dbt's own arguments: ``--select`` and what follows.
    project : Path
        The dbt project; `profiles.yml` lies in the directory above it.
    changed_from : str, optional
        An SQL expression: incremental models are compiled as dbt would run them if rows had
        changed since that moment, reading themselves and a bounded window of their parents.

    Returns
    -------
    dict
        The content of `manifest.json`, each of the selected models with its ``compiled_code``.

    Raises
    ------
    CompilationError
        If dbt refuses the project; the message is dbt's own.
    """
    variables: dict[str, Any] = {"strategies": strategies(project)}
    if changed_from:
        variables["changed_from"] = changed_from
    kept = database.parent / "compiled" / f"{_inputs(database, selection, project, variables)}.json"
    if kept.is_file():
        kept.touch()
        found: dict[str, Any] = json.loads(kept.read_text())
        return found
    with TemporaryDirectory(prefix="tapehouse-compile-") as directory:
        target = Path(directory)
        command = [
            *(str(Path(sys.executable).with_name("dbt")), "--quiet", "compile", "--full-refresh"),
            *selection,
            *("--target", "duckdb", "--no-introspect", "--no-populate-cache", "--no-partial-parse"),
            *("--project-dir", str(project), "--profiles-dir", str(project.parent)),
            *("--target-path", str(target), "--log-path", str(target)),
            *("--vars", json.dumps(variables)),
        ]
        environment = os.environ | {"TAPEHOUSE_DATABASE": str(target / database.name)}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise CompilationError(f"dbt could not compile {project}:\n{done.stdout}{done.stderr}")
        manifest: dict[str, Any] = json.loads((target / "manifest.json").read_text())
        part_datasets(manifest)
    _keep(kept, json.dumps(manifest))
    return manifest


def _inputs(
    database: Path, selection: Sequence[str], project: Path, variables: Mapping[str, Any]
) -> str:
    """Return a hash of everything that what dbt compiles depends on."""
    told = {
        name: value
        for name, value in os.environ.items()
        if name.startswith(("TAPEHOUSE_", "DBT_")) and name != "TAPEHOUSE_DATABASE"
    }
    known = [database.name, list(selection), variables, sorted(told.items()), version("dbt-duckdb")]
    digest = hashlib.sha256(json.dumps(known, sort_keys=True).encode())
    files = [path for folder in _FOLDERS for path in (project / folder).rglob("*")]
    for path in sorted([project.parent / "profiles.yml", project / "dbt_project.yml", *files]):
        if path.is_file():
            digest.update(f"{path.relative_to(project.parent)} {path.stat().st_size} ".encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()[:32]


def _keep(path: Path, text: str) -> None:
    """Write a manifest, whole or not at all, and drop those that were not used for longest."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.part")
    partial.write_text(text)
    partial.replace(path)
    known = sorted(path.parent.glob("*.json"), key=lambda each: each.stat().st_mtime)
    for old in known[:-_MANIFESTS_KEPT]:
        old.unlink(missing_ok=True)


def strategies(project: Path = PROJECT) -> list[dict[str, str]]:
    """Return the rows of a project's seed of strategies, none where it has no such seed."""
    file = project / "seeds" / "strategies.csv"
    if not file.exists():
        return []
    with file.open(newline="") as rows:
        return list(csv.DictReader(rows))


def part_datasets(manifest: dict[str, Any]) -> None:
    """Put in the place of `ds_strategies`, where it was compiled, the datasets it builds."""
    nodes = manifest["nodes"]
    key = next((key for key in nodes if key.endswith(".ds_strategies")), None)
    if key is None or not nodes[key].get("compiled_code"):
        return
    node = nodes.pop(key)
    relations = {other["relation_name"]: each for each, other in nodes.items()}
    with duckdb.connect(":memory:") as connection:
        definitions = connection.sql(node["compiled_code"]).project("name, dataset_sql").fetchall()
    for name, sql in definitions:
        parents = [parent for relation, parent in relations.items() if relation and relation in sql]
        nodes[f"{key.removesuffix('ds_strategies')}ds_{name}"] = node | {
            "name": f"ds_{name}",
            "fqn": [*node["fqn"][:-1], f"ds_{name}"],
            "relation_name": node["relation_name"].replace("ds_strategies", f"ds_{name}"),
            "compiled_code": sql,
            "depends_on": {"nodes": parents},
        }
    for reader in nodes.values():
        parents = reader.get("depends_on", {}).get("nodes", [])
        if key in parents:
            parents.remove(key)
            for name in re.findall(r"\bdataset\(\s*['\"](\w+)['\"]", reader["raw_code"]):
                parents.append(f"{key.removesuffix('ds_strategies')}ds_{name}")


def lineage(manifest: Mapping[str, Any], name: str) -> Lineage:
    """Return a model's ancestors in the order in which they can be built.

    Parameters
    ----------
    manifest : mapping
        A compiled manifest.
    name : str
        The model's name.

    Raises
    ------
    ValueError
        If the project has no such model, or a source that is read declares no ``event_time``.
    """
    nodes = manifest["nodes"]
    last = _key(manifest, name)
    parents: dict[str, list[str]] = {}
    pending = [last]
    while pending:
        key = pending.pop()
        if key not in parents:
            parents[key] = nodes[key]["depends_on"]["nodes"] if key in nodes else []
            pending += parents[key]
    ordered = tuple(TopologicalSorter(parents).static_order())
    return Lineage(
        database=nodes[last]["database"],
        sources=tuple(_source(manifest["sources"][key]) for key in ordered if key not in nodes),
        models=tuple(_model(manifest, nodes[key]) for key in ordered if key in nodes),
    )


def together(chains: Iterable[Lineage]) -> Lineage:
    """Return the lineage of several models, each ancestor once and before its descendants."""
    chains = list(chains)
    return Lineage(
        database=chains[0].database,
        sources=tuple(dict.fromkeys(source for chain in chains for source in chain.sources)),
        models=tuple(dict.fromkeys(model for chain in chains for model in chain.models)),
    )


def dataset(manifest: Mapping[str, Any], model: str) -> str:
    """Return the name of the dataset that a machine-learning model was trained on.

    Raises
    ------
    ValueError
        If the project has no such model, or the model selects from more than one.
    """
    parents = manifest["nodes"][_key(manifest, model)]["depends_on"]["nodes"]
    if len(parents) != 1:
        raise ValueError(f"expected {model} to select from one dataset, found {parents}")
    name: str = manifest["nodes"][parents[0]]["name"]
    return name


def _key(manifest: Mapping[str, Any], name: str) -> str:
    for key, node in manifest["nodes"].items():
        if node["resource_type"] == "model" and node["name"] == name:
            return str(key)
    raise ValueError(f"the dbt project has no model {name}")


def _source(node: Mapping[str, Any]) -> Source:
    event_time = node["config"].get("event_time")
    if event_time is None:
        raise ValueError(f"source {node['name']} declares no event_time in its config")
    minutes = int(node["config"].get("meta", {}).get("lookback_minutes", 0))
    return Source(node["schema"], node["relation_name"], event_time, minutes)


def _model(manifest: Mapping[str, Any], node: Mapping[str, Any]) -> Model:
    known = manifest["nodes"] | manifest["sources"]
    meta = node["config"]["meta"]
    columns = {
        name: column.get("config", {}).get("meta", {})
        for name, column in node.get("columns", {}).items()
    }
    return Model(
        name=node["name"],
        schema=node["schema"],
        relation=node["relation_name"],
        is_view=node["config"]["materialized"] == "view" and not meta.get("is_kept"),
        sql=node["compiled_code"],
        parents=tuple(known[key]["relation_name"] for key in node["depends_on"]["nodes"]),
        lookback_bars=int(meta.get("lookback_bars", 0)),
        lookback_minutes=int(meta.get("lookback_minutes", 0)),
        lookback_rows=int(meta.get("lookback_rows", 0)),
        grain_minutes=int(meta.get("grain_minutes", 0)),
        event_time=node["config"].get("event_time"),
        windows=tuple(
            (name, int(meta.get("window_bars", 0)), int(meta.get("window_minutes", 0)))
            for name, meta in columns.items()
            if {"window_bars", "window_minutes"} & meta.keys()
        ),
        unbounded=tuple(name for name, meta in columns.items() if meta.get("is_unbounded")),
        reads_other_symbols=bool(meta.get("reads_other_symbols")),
    )
