"""`tapehouse models`: the versions of models and their stages."""

from typing import Annotated, Any

import typer

app = typer.Typer(
    name="models",
    help="List, show, compare, promote and roll back versions of models.",
    no_args_is_help=True,
)

Name = Annotated[str, typer.Argument(help="The model, as ml_order_flow.", show_default=False)]
Reason = Annotated[str, typer.Option("--reason", help="Recorded with the change.")]


@app.command("list")
def list_versions(
    name: Annotated[str | None, typer.Argument(help="Only this model.")] = None,
) -> None:
    """List the versions of all models or of one, the newest first.

    Exit code 0: listed. 1: there is no warehouse, no registry or no such model.
    """
    from ml import versions as registered
    from orchestration.commands.tables import print_rows

    with _reading() as connection:
        if name is not None:
            registered.find(connection, name)
        versions = registered.versions(connection, name)
    print_rows(
        ["model", "version", "stage", "type", "loss", "rows", "train end (UTC)", "trained (UTC)"],
        [
            [
                *(entry.name, entry.version, entry.stage, entry.facts["model_type"]),
                f"{entry.validation_loss:.6g}" if entry.validation_loss is not None else "",
                f"{entry.facts['train_rows']:,}",
                registered.minute(entry.facts["train_end_at"]),
                registered.minute(entry.registered_at),
            ]
            for entry in versions
        ],
    )


@app.command()
def show(
    name: Name,
    version: Annotated[
        str | None, typer.Argument(help="First digits; without, the champion.")
    ] = None,
) -> None:
    """Show a version: where it comes from, how it did, and what became of it.

    Exit code 0: shown. 1: there is no warehouse, no registry or no such version.
    """
    from ml import gates
    from ml import versions as registered
    from orchestration.commands.tables import print_rows

    with _reading() as connection:
        entry = registered.find(connection, name, version)
        history = registered.history(connection, entry)
        folds = registered.folds(connection, entry)
        judged = gates.gates(connection, entry)
    print_rows(["fact", "value"], registered.described(entry))
    print_rows(["stage", "since (UTC)", "reason"], history)
    if folds:
        print_rows(["fold", "from (UTC)", "to (UTC)", "rows", "metrics"], folds)
    print_rows(["gate", "passed", "found"], _gate_rows(judged))


@app.command()
def compare(
    name: Name,
    versions: Annotated[list[str], typer.Argument(help="First digits of two versions.")],
) -> None:
    """Show what two versions of a model do not share; with one, the other is the champion.

    Exit code 0: compared. 1: there is no warehouse, no registry or no such version.
    2: more than two versions were named.
    """
    from ml import versions as registered
    from orchestration.commands.tables import print_rows

    if len(versions) > 2:
        raise typer.BadParameter("one or two versions are expected", param_hint="VERSIONS")
    with _reading() as connection:
        one = registered.find(connection, name, versions[1] if len(versions) == 2 else None)
        other = registered.find(connection, name, versions[0])
    if len(versions) == 2:
        one, other = other, one
    print_rows(
        ["", f"{one.version} ({one.stage})", f"{other.version} ({other.stage})"],
        [list(row) for row in registered.differences(one, other)],
    )


@app.command()
def promote(
    name: Name,
    version: Annotated[str, typer.Argument(help="First digits of the version.")],
    stage: Annotated[
        str, typer.Option("--stage", help="champion, shadow, candidate or retired.")
    ] = "champion",
    reason: Reason = "promoted by hand",
    force: Annotated[
        bool, typer.Option("--force", help="Make it champion though a gate does not pass.")
    ] = False,
) -> None:
    """Give a version another stage; a new champion must pass the gates and retires the old one.

    Exit code 0: done. 1: a gate did not pass, or there is no such version. 2: the command was
    not understood.
    """
    from ml import lifecycle
    from ml import versions as registered
    from orchestration.commands.tables import print_rows

    if stage not in lifecycle.STAGES:
        raise typer.BadParameter(
            f"one of {', '.join(lifecycle.STAGES)} is expected", param_hint="--stage"
        )
    if force and reason == "promoted by hand":
        raise typer.BadParameter("--force needs a --reason", param_hint="--force")
    with _reading() as connection:
        entry = registered.find(connection, name, version)
    with _writing() as connection:
        judged = lifecycle.move(connection, entry, stage, reason=reason, is_forced=force)
    if judged:
        print_rows(["gate", "passed", "found"], _gate_rows(judged))
    typer.echo(f"{name} {entry.version} is {stage}")


@app.command()
def rollback(name: Name, reason: Reason = "rolled back by hand") -> None:
    """Make the champion before the present one champion again.

    Exit code 0: done. 1: there was none, or no such model.
    """
    from ml import lifecycle
    from ml import versions as registered

    with _reading() as connection:
        registered.find(connection, name)
    with _writing() as connection:
        entry = lifecycle.rollback(connection, name, reason=reason)
    typer.echo(f"{name} {entry.version} is champion again")


@app.command()
def export(
    names: Annotated[list[str], typer.Argument(help="The models, as ml_order_flow.")],
    to: Annotated[str, typer.Option("--to", help="gs://bucket/folder", show_default=False)],
    version: Annotated[
        str | None, typer.Option("--version", help="First digits; without, the champion.")
    ] = None,
) -> None:
    """Upload the ONNX files of models to Cloud Storage and print what dbt needs to import them.

    Each file is checked first: that it is whole, and within the limits of BigQuery ML. What is
    printed goes to `dbt build --target bigquery --vars "$(tapehouse models export …)"`.
    STORAGE_EMULATOR_HOST is honoured.

    Exit code 0: uploaded. 1: a check did not pass, there is no such version, or Cloud Storage
    refused. 2: the command was not understood.
    """
    from ml import cloud_model
    from ml import versions as registered

    if version is not None and len(names) > 1:
        raise typer.BadParameter("one model has the version", param_hint="--version")
    with _reading() as connection:
        entries = [registered.find(connection, name, version) for name in names]
        files = [cloud_model.check(connection, entry) for entry in entries]
        facts = [cloud_model.describe(connection, entry) for entry in entries]
    client = cloud_model.client()
    for entry, content, told in zip(entries, files, facts, strict=True):
        told["path"] = cloud_model.upload(
            content,
            name=entry.name,
            sha256=entry.facts["onnx_sha256"],
            to=to,
            client=client,
        )
        typer.echo(f"{entry.name} {entry.version}: {told['path']}", err=True)
    typer.echo(cloud_model.variable(dict(zip(names, facts, strict=True))))


def _gate_rows(judged: Any) -> list[list[str]]:
    return [[gate.name, "yes" if gate.is_passed else "no", gate.finding] for gate in judged]


def _reading() -> Any:
    from ingest import warehouse
    from ingest.settings import Settings

    settings = Settings()
    return warehouse.reading(settings.database, timeout_s=settings.writer_timeout_s)


def _writing() -> Any:
    from ingest import warehouse
    from ingest.settings import Settings

    settings = Settings()
    return warehouse.writing(settings.database, timeout_s=settings.writer_timeout_s)
