"""`tapehouse score`."""

from orchestration.commands.target import Target


def score(_target: Target = None) -> None:
    """Score every bar that has no prediction of the active model yet.

    Features are computed by the dbt project's own SQL over the raw rows; the predictions and, by
    a view on them, the signals are what `dbt build` would have written. Running it again, or
    twice at once, writes nothing twice.

    With --target bigquery the raw rows are read from BigQuery and the predictions written there;
    the models, and their thresholds, are those of the local registry.

    Exit code 0: done, also when there was nothing to score. 1: there is no warehouse, no model or
    no table yet, or another process did not release the warehouse; the message says what to do.
    """
    from datetime import UTC, datetime

    from ingest.settings import Settings
    from orchestration.report import print_scored
    from serving.scoring import score_bars

    now = datetime.now(UTC).replace(tzinfo=None)
    print_scored(score_bars(Settings(), now=now))
