"""The dbt project as Dagster assets."""

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import dagster as dg
from dagster_dbt import DagsterDbtTranslator, DbtCliResource, DbtProject, dbt_assets

from ingest.settings import PROJECT_ROOT, Settings
from orchestration.metrics import metrics


class Layers(DagsterDbtTranslator):
    """Groups models by the folder of their layer."""

    def get_group_name(self, dbt_resource_props: Mapping[str, Any]) -> str:
        """Return the first folder under `models/`."""
        return str(dbt_resource_props["fqn"][1])


def prepared_project(settings: Settings) -> DbtProject:
    """Return the dbt project with a manifest that is newer than each of its files."""
    project = DbtProject(
        PROJECT_ROOT / "dbt_project",
        profiles_dir=PROJECT_ROOT,
        target_path=settings.dagster_directory / "manifest",
    )
    if _is_stale(project.manifest_path, project.project_dir):
        command_line(project).cli(["parse", "--quiet"], target_path=project.target_path).wait()
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
        build = dbt.cli(["build"], context=context, target_path=target)
        for event in build.stream().fetch_row_counts():
            if isinstance(event, dg.Output):
                found = metrics(settings, event.output_name)
                yield event.with_metadata({**event.metadata, **found})
            else:
                yield event

    return dbt_build


def _is_stale(manifest: Path, project: Path) -> bool:
    if not manifest.exists():
        return True
    files = [PROJECT_ROOT / "profiles.yml", *project.glob("*.yml")]
    for folder in ("models", "macros", "tests", "analyses"):
        files += (project / folder).rglob("*.*")
    return max(file.stat().st_mtime for file in files) > manifest.stat().st_mtime
