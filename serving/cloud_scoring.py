"""The scheduled scoring job over raw rows in BigQuery: the same SQL, run in memory here.

The models are those of the local registry. Raw rows come through the Storage Read API, and what
is computed of them, in DuckDB, is what the local warehouse would compute.
"""

import uuid
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
from google.api_core.exceptions import NotFound
from google.cloud import bigquery

from ingest import warehouse
from ingest.bigquery import BigQuery, arrow_type, told
from ingest.cloud_landing import load
from ingest.raw_tables import raw_tables
from ingest.settings import Settings
from ml import onnx_model, registry
from serving.manifest import Lineage, Source, compiled_manifest, dataset, lineage
from serving.scoring import (
    KEY,
    NoModelError,
    NotReadyError,
    Scored,
    matrix,
    predicted,
    predictions_of,
    signals_of,
    unscored,
    unscored_rows,
)
from serving.window import LATENESS, evaluated, raw_start

_THRESHOLDS = "sig_thresholds"
_MINUTE = timedelta(minutes=1)


def score(settings: Settings, *, now: datetime) -> list[Scored]:
    """Score bars in BigQuery by the active models of the local registry, as the local job does.

    Raises
    ------
    NoModelError
        If there is no local warehouse, or no active model in it.
    NotReadyError
        If `dbt build --target bigquery` has not made its tables yet.
    CloudError
        If BigQuery cannot be used.
    """
    cloud = BigQuery(settings)
    deployed = _deployed(settings)
    names = [each.model.name for each in deployed]
    manifest = compiled_manifest(settings.database, names)
    chains = [lineage(manifest, dataset(manifest, name)) for name in names]
    since = min(each.model.train_end_at for each in deployed) - timedelta(days=1)
    with told(f"cannot score in {cloud.client.project}.{cloud.dataset}"):
        for each in deployed:
            _required(cloud, predictions_of(each.model))
            _required(cloud, signals_of(each.model))
        klines = _times_of_klines(cloud, since)
        return [
            each.score(cloud, chain, klines, now=now)
            for each, chain in zip(deployed, chains, strict=True)
        ]


def _deployed(settings: Settings) -> "list[_Deployed]":
    timeout_s = settings.writer_timeout_s
    if settings.database.is_file():
        with warehouse.reading(settings.database, timeout_s=timeout_s) as connection:
            active = registry.active_models(connection)
            if active:
                return [_Deployed(settings, connection, model) for model in active]
    raise NoModelError(
        f"{settings.database}, whose models score BigQuery's rows too, has no active one: "
        "run `dbt build --project-dir dbt_project --target duckdb` first"
    )


class _Deployed:
    """An active model: what the local warehouse says of it."""

    def __init__(
        self, settings: Settings, connection: duckdb.DuckDBPyConnection, model: registry.Model
    ) -> None:
        self.model = model
        file: Path = registry.model_file(connection, settings.database, model.sha256)
        self._session = onnx_model.load(file)
        self._threshold = connection.sql(
            f"select * from {_THRESHOLDS} where model_name = $name and model_version = $version",
            params={"name": model.name, "version": model.version},
        ).to_arrow_table()
        self._timeout_s = settings.writer_timeout_s
        self._database = settings.database

    def score(self, cloud: BigQuery, chain: Lineage, klines: pa.Table, *, now: datetime) -> Scored:
        """Score what is missing, a day at a time; ``klines`` say which bars there are."""
        table = _required(cloud, predictions_of(self.model))
        merge(
            cloud, _required(cloud, _THRESHOLDS), self._threshold, ["model_name", "model_version"]
        )
        interval_minutes, days = self._days(cloud, chain, table, klines)
        computed = 0
        for day in days:
            start = datetime.combine(day, time.min)
            end = start + timedelta(days=1)
            raw = _raw_rows(cloud, chain, start=start, end=end, interval_minutes=interval_minutes)
            scored = self._scored(cloud, table, start, end)
            with evaluated(chain, raw) as memory:
                rows = unscored_rows(memory, self.model, chain, scored, start=start)
            probability = onnx_model.probabilities(self._session, matrix(rows, self.model))
            predictions = self._named(predicted(rows, self.model, probability), now)
            merge(cloud, table, predictions, ["model_version", *KEY.split(", ")])
            computed += predictions.num_rows
        if not computed:
            return Scored(self.model.name, self.model.version, 0, 0, None, None, 0, 0, 0)
        return self._report(cloud, days, computed, now=now)

    def _days(
        self, cloud: BigQuery, chain: Lineage, table: bigquery.Table, klines: pa.Table
    ) -> tuple[int, list[date]]:
        since = self.model.train_end_at - timedelta(days=1)
        staged = next(part for part in chain.models if part.name == "stg_klines")
        source = next(part for part in chain.sources if part.relation in staged.parents)
        bars = chain.models[-1].relation
        with warehouse.reading(self._database, timeout_s=self._timeout_s) as connection:
            series = connection.sql(
                f"select distinct exchange, market, interval_minutes from {bars}"
            ).to_arrow_table()
        scored = self._scored(cloud, table, since, datetime.max)
        raw = {source.relation: klines}
        with evaluated(replace(chain, sources=(source,), models=(staged,)), raw) as memory:
            memory.register("series", series)
            memory.execute(f"create schema if not exists {bars.rpartition('.')[0]}")
            memory.execute(f"create table {bars} as select * from series")
            memory.register("scored", scored)
            memory.execute(
                f"create table {predictions_of(self.model)} as "
                "select *, cast($version as varchar) as model_version from scored",
                {"version": self.model.version},
            )
            return unscored(memory, self.model, chain)

    def _scored(
        self, cloud: BigQuery, table: bigquery.Table, start: datetime, end: datetime
    ) -> pa.Table:
        rows = cloud.rows(
            table.reference,
            columns=KEY.split(", "),
            where=f"model_version = '{self.model.version}' and {_between('opened_at', start, end)}",
        )
        place = rows.schema.get_field_index("opened_at")
        return rows.set_column(place, "opened_at", rows["opened_at"].cast(pa.timestamp("us")))

    def _named(self, predictions: pa.Table, now: datetime) -> pa.Table:
        count = predictions.num_rows
        constants = {
            "model_name": pa.scalar(self.model.name),
            "model_version": pa.scalar(self.model.version),
            "predicted_at": pa.scalar(now, pa.timestamp("us")),
        }
        for name, value in constants.items():
            predictions = predictions.append_column(name, pa.repeat(value, count))
        return predictions

    def _report(
        self, cloud: BigQuery, days: Sequence[date], computed: int, *, now: datetime
    ) -> Scored:
        predictions = cloud.model(predictions_of(self.model))
        signals = cloud.model(signals_of(self.model))
        first, last = (datetime.combine(day, time.min) for day in (days[0], days[-1]))
        written = _between("opened_at", first, last + timedelta(days=1))
        counts = ", ".join(f"countif(signal = {signal})" for signal in (1, -1, 0))
        (found,) = cloud.query(
            f"""
            select count(*), min(opened_at), max(opened_at), {counts}
            from (select * from `{predictions}` where {written}) as predictions
            inner join (select * from `{signals}` where {written}) as signals
                using (model_version, {KEY})
            where model_version = @version and predicted_at = @now
            """,
            [
                bigquery.ScalarQueryParameter("version", "STRING", self.model.version),
                bigquery.ScalarQueryParameter("now", "TIMESTAMP", now.replace(tzinfo=UTC)),
            ],
        ).to_pylist()
        bars, first, last, up, down, flat = found.values()
        return Scored(
            self.model.name,
            self.model.version,
            bars,
            computed - bars,
            first and first.replace(tzinfo=None),
            last and last.replace(tzinfo=None),
            *(up, down, flat),
        )


def merge(cloud: BigQuery, table: bigquery.Table, rows: pa.Table, key: Sequence[str]) -> None:
    """Insert the rows of which the key is not there yet, in one statement."""
    if not rows.num_rows:
        return
    schema = pa.schema([(field.name, arrow_type(field)) for field in table.schema])
    rows = rows.select(schema.names).cast(schema)
    staged = bigquery.Table(cloud.model(f"landing_{uuid.uuid4().hex}"), schema=table.schema)
    staged.expires = datetime.now(UTC) + timedelta(days=1)
    staged = cloud.client.create_table(staged)
    names = ", ".join(f"`{name}`" for name in schema.names)
    equal = " and ".join(f"present.{name} = fresh.{name}" for name in key)
    if "opened_at" in key:
        # Of the table only the days between these constants are read.
        bars = pc.min_max(rows["opened_at"]).as_py()
        equal += f" and {_between('present.opened_at', bars['min'], bars['max'] + _MINUTE)}"
    try:
        load(cloud, staged, rows)
        cloud.query(
            f"merge `{table.reference}` as present using `{staged.reference}` as fresh "
            f"on {equal} when not matched then insert ({names}) values ({names})"
        )
    finally:
        cloud.client.delete_table(staged, not_found_ok=True)


def _times_of_klines(cloud: BigQuery, since: datetime) -> pa.Table:
    """Return which klines there are since a moment; all else that they say is left out, as null."""
    names = ["exchange", "market", "symbol", "interval", "open_time", "is_closed"]
    where = _between("open_time", since, datetime.max)
    rows = cloud.rows(cloud.raw("klines"), columns=names, where=where)
    fields = raw_tables()["klines"].schema
    nothing = {field.name: pa.nulls(rows.num_rows, arrow_type(field)) for field in fields}
    return pa.table(nothing | {name: rows[name] for name in names})


def _required(cloud: BigQuery, name: str) -> bigquery.Table:
    try:
        return cloud.client.get_table(cloud.model(name))
    except NotFound as error:
        raise NotReadyError(
            f"BigQuery has no {cloud.model(name)}: "
            "run `dbt build --project-dir dbt_project --target bigquery` first"
        ) from error


def _raw_rows(
    cloud: BigQuery, chain: Lineage, *, start: datetime, end: datetime, interval_minutes: int
) -> dict[str, pa.Table]:
    minutes = chain.lookbacks(interval_minutes)
    return {
        source.relation: _rows(
            cloud,
            source,
            raw_start(start, minutes=minutes[source.relation]),
            end + (LATENESS if source.lookback_minutes else timedelta()),
        )
        for source in chain.sources
    }


def _rows(cloud: BigQuery, source: Source, start: datetime, end: datetime) -> pa.Table:
    """Return the rows of a source that happened in a span of time."""
    name = source.relation.rpartition(".")[2].strip('"')
    partition = raw_tables()[name].event_time
    if source.event_time == partition:
        return cloud.rows(cloud.raw(name), where=_between(partition, start, end))
    # The partition says when a row was received, which clocks put at most a day before it happened.
    rows = cloud.rows(cloud.raw(name), where=_between(partition, start - LATENESS, datetime.max))
    with duckdb.connect(":memory:") as connection:
        connection.execute("set TimeZone = 'UTC'")
        connection.register("landed", rows)
        return connection.sql(
            f"select * from landed "
            f"where {source.event_time} >= $start and {source.event_time} < $end",
            params={
                "start": start.replace(tzinfo=UTC),
                "end": min(end, datetime.max - timedelta(days=1)).replace(tzinfo=UTC),
            },
        ).to_arrow_table()


def _between(column: str, start: datetime, end: datetime) -> str:
    return (
        f"{column} >= timestamp '{start:%Y-%m-%d %H:%M:%S}+00' "
        f"and {column} < timestamp '{end:%Y-%m-%d %H:%M:%S}+00'"
    )
