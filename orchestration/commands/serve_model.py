"""`tapehouse serve-model`."""

from typing import Annotated

import typer


def serve_model(
    port: Annotated[int, typer.Option(help="Port on 127.0.0.1; 0 takes a free one.")] = 8323,
    provider: Annotated[
        list[str] | None,
        typer.Option(help="Of ONNX Runtime, such as CUDAExecutionProvider; may be repeated."),
    ] = None,
    metrics_port: Annotated[
        int, typer.Option(help="Of the metrics on 127.0.0.1; 0 takes a free one.")
    ] = 0,
) -> None:
    """Serve champions and shadows over the Open Inference Protocol (HTTP, version 2).

    The registry is that of TAPEHOUSE_DATABASE, also of a copy such as the snapshot, so that
    another machine can host the models. What is promoted meanwhile is served within seconds, and
    the version before it until the next promotion. Ctrl-C or SIGTERM stops it.

    Exit code 0: stopped. 1: there is no model, or the port is taken. 2: there is no such provider.
    """
    import asyncio
    import signal
    from contextlib import ExitStack
    from functools import partial

    import onnxruntime
    from rich.console import Console

    from ingest import health
    from ingest.settings import Settings
    from serving import model_server

    available = onnxruntime.get_available_providers()
    unknown = sorted(set(provider or ()) - set(available))
    if unknown:
        raise typer.BadParameter(
            f"{', '.join(unknown)}: ONNX Runtime here has {', '.join(available)}",
            param_hint="--provider",
        )
    settings = Settings()
    load = partial(model_server.load, settings.database, providers=provider or ())
    models = load(timeout_s=settings.writer_timeout_s)

    def renew(known: model_server.Models) -> model_server.Models:
        return load(timeout_s=0, known=known)

    console = Console(highlight=False, soft_wrap=True)

    async def run() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop.set)
        async with model_server.serving(models, port=port, renew=renew) as address:
            for versions in models.values():
                for model in versions.values():
                    console.print(f"{address}/v2/models/{model.name}/versions/{model.version}")
            await stop.wait()

    with ExitStack() as stack:
        try:
            metrics = stack.enter_context(health.running(settings, "models", port=metrics_port))
            console.print(f"metrics: {metrics}")
            asyncio.run(run())
        except OSError as error:
            typer.secho(f"Error: {error}", err=True, fg="red")
            raise typer.Exit(1) from error
