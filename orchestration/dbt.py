"""The dbt project as Dagster assets."""

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import dagster as dg
from dagster_dbt import DagsterDbtTranslator, DbtCliResource, DbtProject, dbt_assets

from ingest.settings import PROJECT_ROOT, Settings
from orchestration.metrics import row_counts


class Layers(DagsterDbtTranslator):
    """Groups models by the folder of their layer."""

    def get_group_name(self, dbt_resource_props: Mapping[str, Any]) -> str:
        """Return the first folder under `models/`, `seeds` for a seed."""
        is_model = dbt_resource_props["resource_type"] == "model"
        return str(dbt_resource_props["fqn"][1]) if is_model else "seeds"


def prepared_project(settings: Settings) -> DbtProject:
    """Return the dbt project with a manifest that is newer than each of its files."""
    project = DbtProject(
        PROJECT_ROOT / "dbt_project",
        profiles_dir=PROJECT_ROOT,
        target_path=settings.dagster_directory / "manifest",
    )
    if _is_stale(project.manifest_path, project.project_dir):
        # Steps in processes of their own may parse at once: none reads another's half a file.
        settings.dagster_directory.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=settings.dagster_directory, prefix="parse-") as parsed:
            command_line(project).cli(["parse", "--quiet"], target_path=Path(parsed)).wait()
            project.manifest_path.parent.mkdir(exist_ok=True)
            (Path(parsed) / "manifest.json").replace(project.manifest_path)
    return project


def command_line(project: DbtProject) -> DbtCliResource:
    """Return the dbt of this environment, also where the environment is not activated."""
    return DbtCliResource(project, dbt_executable=Path(sys.executable).with_name("dbt"))


def models(project: DbtProject) -> dg.AssetsDefinition:
    """Return the models of the project, their tests as asset checks."""

    @dbt_assets(
        name="dbt_build",
        manifest=project.manifest_path,
        project=project,
        dagster_dbt_translator=Layers(),
    )
    def dbt_build(
        context: dg.AssetExecutionContext,
        dbt: DbtCliResource,
        settings: dg.ResourceParam[Settings],
    ) -> Iterator[Any]:
        target = settings.dagster_directory / "runs" / context.run_id
        build = dbt.cli(["build"], context=context, target_path=target, raise_on_error=False)
        # Dbt holds the warehouse until it ends; only then are the rows counted.
        events = list(build.stream())
        counts = row_counts(settings)
        for event in events:
            if isinstance(event, dg.Output) and event.output_name in counts:
                count = {"dagster/row_count": counts[event.output_name]}
                yield event.with_metadata({**event.metadata, **count})
            else:
                yield event
        if error := build.get_error():
            raise error

    return dbt_build


def _is_stale(manifest: Path, project: Path) -> bool:
    if not manifest.exists():
        return True
    files = [PROJECT_ROOT / "profiles.yml", *project.glob("*.yml")]
    for folder in ("models", "macros", "seeds", "tests", "analyses"):
        files += (project / folder).rglob("*.*")
    return max(file.stat().st_mtime for file in files) > manifest.stat().st_mtime
