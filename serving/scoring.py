"""The scheduled scoring job: every bar that has no prediction yet gets one."""

from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa

from ingest import warehouse
from ingest.settings import Settings
from ml import onnx_model, registry
from serving.manifest import Lineage, compiled_manifest, dataset, lineage
from serving.window import evaluated, raw_rows

KEY = "exchange, market, symbol, interval_minutes, opened_at"


class NotReadyError(RuntimeError):
    """The warehouse lacks what scoring needs; the message says what to run first."""


class NoModelError(NotReadyError):
    """No model has been trained or promoted here."""


@dataclass(frozen=True)
class Scored:
    """What one run did for one model.

    Parameters
    ----------
    model, version : str
        The active model.
    bars : int
        Predictions written.
    skipped : int
        Bars computed and not written, as another run had scored them meanwhile.
    first_opened_at, last_opened_at : datetime or None
        Opening of the first and the last bar scored, naive UTC; None when there was none.
    up, down, flat : int
        Signals of the bars scored.
    """

    model: str
    version: str
    bars: int
    skipped: int
    first_opened_at: datetime | None
    last_opened_at: datetime | None
    up: int
    down: int
    flat: int


def score_bars(settings: Settings, *, now: datetime) -> list[Scored]:
    """Score every bar that the active models have not scored, where the settings say.

    Parameters
    ----------
    settings : Settings
        Names the warehouse; for BigQuery see ``serving.cloud_scoring``.
    now : datetime
        Naive UTC; written as ``predicted_at``.
    """
    if settings.target == "bigquery":
        from serving import cloud_scoring

        return cloud_scoring.score(settings, now=now)
    return score(settings.database, now=now, timeout_s=settings.writer_timeout_s)


def score(database: Path, *, now: datetime, timeout_s: float = 600.0) -> list[Scored]:
    """Score every bar that the active models have not scored yet.

    Features come from the dbt project's SQL, run in memory over the raw rows of one day at a
    time and of the bars before it that they need; the warehouse is held only while these rows
    are copied and the predictions inserted.

    Parameters
    ----------
    database : Path
        The warehouse file.
    now : datetime
        Naive UTC; written as ``predicted_at``.
    timeout_s : float
        Seconds to wait for another process to release the file.

    Returns
    -------
    list of Scored
        One per active model, by name.

    Raises
    ------
    NotReadyError
        If no model is registered, or `dbt build` has not made its tables yet.
    WarehouseMissingError, WarehouseBusyError
        If there is no warehouse file, or it was not released in time.
    CompilationError
        If dbt refuses the project.
    """
    with warehouse.reading(database, timeout_s=timeout_s) as connection:
        models = registry.active_models(connection)
        for model in models:
            require_tables(connection, database, predictions_of(model), signals_of(model))
    if not models:
        raise NotReadyError(f"{database} has no active model: {BUILD_FIRST}")
    manifest = compiled_manifest(database, [model.name for model in models])
    return [
        _score_model(
            database,
            model,
            lineage(manifest, dataset(manifest, model.name)),
            now=now,
            timeout_s=timeout_s,
        )
        for model in models
    ]


BUILD_FIRST = "run `dbt build --project-dir dbt_project` first"


def _score_model(
    database: Path, model: registry.Model, chain: Lineage, *, now: datetime, timeout_s: float
) -> Scored:
    with warehouse.reading(database, timeout_s=timeout_s) as connection:
        interval_minutes, days = unscored(connection, model, chain)
        session = onnx_model.load(registry.model_file(connection, database, model.sha256))
    skipped = 0
    for day in days:
        start = datetime.combine(day, time.min)
        end = start + timedelta(days=1)
        with warehouse.reading(database, timeout_s=timeout_s) as connection:
            raw = raw_rows(
                connection, chain, start=start, end=end, interval_minutes=interval_minutes
            )
            scored = _scored_keys(connection, model, start=start, end=end)
        with evaluated(chain, raw) as memory:
            rows = unscored_rows(memory, model, chain, scored, start=start)
        predictions = predicted(rows, model, onnx_model.probabilities(session, matrix(rows, model)))
        with warehouse.writing(database, timeout_s=timeout_s) as connection:
            skipped += predictions.num_rows - _insert(connection, model, predictions, now=now)
    with warehouse.reading(database, timeout_s=timeout_s) as connection:
        return _report(connection, model, skipped=skipped, now=now)


def predictions_of(model: registry.Model) -> str:
    """Return the name of the table of a model's predictions."""
    return f"pred_{model.name.removeprefix('ml_')}"


def signals_of(model: registry.Model) -> str:
    """Return the name of the view of a model's signals."""
    return f"sig_{model.name.removeprefix('ml_')}"


def require_tables(connection: duckdb.DuckDBPyConnection, database: Path, *names: str) -> None:
    """See to it that the project's tables of these names have been built.

    Raises
    ------
    NotReadyError
        If one has not; the message names all that are missing.
    """
    found = connection.execute(
        "select table_name from information_schema.tables where table_schema = 'main'"
    ).fetchall()
    missing = sorted(set(names) - {name for (name,) in found})
    if missing:
        raise NotReadyError(f"{database} has no {' and no '.join(missing)}: {BUILD_FIRST}")


def unscored(
    connection: duckdb.DuckDBPyConnection, model: registry.Model, chain: Lineage
) -> tuple[int, list[date]]:
    """Return the bars' length in minutes and the UTC days with complete bars to score."""
    klines = next(part.relation for part in chain.models if part.name == "stg_klines")
    rows = connection.execute(
        f"""
        with series as (
            select distinct exchange, market, interval_minutes as bar_minutes
            from {chain.models[-1].relation}
        ),
        bars as (
            select
                exchange, market, symbol, bar_minutes as interval_minutes,
                time_bucket(to_minutes(bar_minutes), klines.opened_at) as opened_at
            from {klines} as klines inner join series using (exchange, market)
            where is_closed and klines.opened_at >= $since
            group by exchange, market, symbol, bar_minutes, klines.interval_minutes, 5
            having count(*) * klines.interval_minutes = bar_minutes
        ),
        predictions as (
            select {KEY} from {predictions_of(model)} where model_version = $version
        )
        select interval_minutes, cast(opened_at as date)
        from bars anti join predictions using ({KEY})
        where opened_at + to_minutes(interval_minutes) >= $train_end_at
        group by all
        order by all
        """,
        {
            "since": model.train_end_at - timedelta(days=1),
            "train_end_at": model.train_end_at,
            "version": model.version,
        },
    ).fetchall()
    return max((minutes for minutes, _ in rows), default=0), sorted({day for _, day in rows})


def _scored_keys(
    connection: duckdb.DuckDBPyConnection, model: registry.Model, *, start: datetime, end: datetime
) -> pa.Table:
    return connection.sql(
        f"select {KEY} from {predictions_of(model)} "
        "where model_version = $version and opened_at >= $start and opened_at < $end",
        params={"version": model.version, "start": start, "end": end},
    ).to_arrow_table()


def unscored_rows(
    memory: duckdb.DuckDBPyConnection,
    model: registry.Model,
    chain: Lineage,
    scored: pa.Table,
    *,
    start: datetime,
) -> pa.Table:
    """Return keys, times and features of the bars of a day that have no prediction yet."""
    memory.register("scored", scored)
    features = ", ".join(f'cast("{name}" as float) as "{name}"' for name in model.features)
    return memory.sql(
        f"select {KEY}, closed_at, available_at, {features} "
        f"from {chain.models[-1].relation} anti join scored using ({KEY}) "
        "where opened_at >= $start and closed_at >= $train_end_at",
        params={"start": start, "train_end_at": model.train_end_at},
    ).to_arrow_table()


def matrix(rows: pa.Table, model: registry.Model) -> np.ndarray:
    """Return the features of rows, in the model's order and precision."""
    columns = [rows.column(name).to_numpy() for name in model.features]
    return np.column_stack(columns).astype(np.float32, copy=False)


def predicted(rows: pa.Table, model: registry.Model, probability: np.ndarray) -> pa.Table:
    """Return rows with their probabilities instead of their features."""
    return (
        rows.drop_columns(list(model.features))
        .append_column("probability", pa.array(probability))
        .append_column(f"predicted_{model.label}", pa.array(probability > 0.5))
    )


def _insert(
    connection: duckdb.DuckDBPyConnection,
    model: registry.Model,
    predictions: pa.Table,
    *,
    now: datetime,
) -> int:
    connection.register("predictions", predictions)
    ((count,),) = connection.execute(
        f"insert into {predictions_of(model)} by name "
        "select *, $name as model_name, $version as model_version, $now as predicted_at "
        f"from predictions anti join (select {KEY} from {predictions_of(model)} "
        f"where model_version = $version) as present using ({KEY})",
        {"name": model.name, "version": model.version, "now": now},
    ).fetchall()
    return int(count)


def _report(
    connection: duckdb.DuckDBPyConnection, model: registry.Model, *, skipped: int, now: datetime
) -> Scored:
    counts = ", ".join(f"count(*) filter (where signal = {signal})" for signal in (1, -1, 0))
    ((bars, first, last, up, down, flat),) = connection.execute(
        f"""
        select
            count(*), min(opened_at), max(opened_at),
            {counts}
        from {predictions_of(model)}
        inner join {signals_of(model)} using (model_version, {KEY})
        where model_version = $version and predicted_at = $now
        """,
        {"version": model.version, "now": now},
    ).fetchall()
    return Scored(model.name, model.version, bars, skipped, first, last, up, down, flat)
