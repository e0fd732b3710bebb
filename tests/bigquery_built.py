"""Both warehouses after a build and a refresh, and the places where BigQuery is asked."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from bigquery_fixtures import dbt, load, table_of_duckdb
from bigquery_predictions import TABLES, copy_predictions, imported_models, tell_the_future
from bigquery_status import IS_WHOLE

from ingest.bigquery import BigQuery
from ingest.settings import Settings

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
HAS_RECORDED = IS_WHOLE and SHARED.is_dir()
LAYERS = ("staging", "intermediate", "features", "labels", "datasets")
FAST = ("lbl_return", "int_trade_minutes")
SELECTED = (
    ["path:seeds", *(f"path:models/{layer}" for layer in LAYERS)]
    if IS_WHOLE
    else [f"+{name}" for name in FAST]
)
AFTER_MODELS = (
    "pred_order_flow_votes",
    *(f"path:models/{layer}" for layer in ("signals", "trading", "quality")),
)
ONLY_TABLES = ("--exclude-resource-type", "test", "--exclude-resource-type", "unit_test")
# What follows from an order that engines may differ in.
PLACES = ("series_key", "position", "place")
# What no model of dbt is, and what was copied from DuckDB.
OTHERS = {"raw_days", "refreshes", "criteria", "ensembles", "strategies"}
OTHERS |= {f"pred_{table}" for table in TABLES}


@dataclass(frozen=True)
class Built:
    """Both warehouses: BigQuery after a build and a refresh, DuckDB built at once.

    ``tables`` in both; ``results``, the worst that dbt said of each node on BigQuery; ``datasets``,
    the rows of BigQuery's before they were rounded; ``place``, emulator or service.
    """

    settings: Settings
    place: str
    tables: list[str]
    results: dict[str, str]
    datasets: Mapping[str, pa.Table] = field(default_factory=dict)

    def analysis(self, name: str, target: str) -> str:
        """Return the SQL of an analysis as dbt compiled it."""
        compiled = self.settings.database.parent / f"dbt-{target}" / "compiled"
        return (compiled / "tapehouse" / "analyses" / f"{name}.sql").read_text()

    def expected(self, name: str) -> pa.Table:
        return sorted_rows(table_of_duckdb(self.settings, name))

    def found(self, name: str) -> pa.Table:
        if name in self.datasets:
            return sorted_rows(self.datasets[name])
        return sorted_rows(rows_of(self.settings, name))


def rows_of(settings: Settings, name: str) -> pa.Table:
    """Return a table of BigQuery's with the columns of DuckDB's."""
    cloud = BigQuery(settings)
    schema = table_of_duckdb(settings, name).schema
    # The emulator says of all decimals that they have nine places.
    columns = [
        f"cast({field.name} as float64) as {field.name}"
        if pa.types.is_decimal(field.type)
        else field.name
        for field in schema
    ]
    seen = cloud.model(f"seen_{name}")
    cloud.query(
        f"create or replace table `{seen}` as "
        f"select {', '.join(columns)} from `{cloud.model(name)}`"
    )
    return cloud.rows(seen, columns=schema.names)


def sorted_rows(rows: pa.Table) -> pa.Table:
    """Sort by what is exact: numbers, which may differ in their last digits, come last."""
    kinds = dict(zip(rows.column_names, rows.schema.types, strict=True))
    keys = [name for name in kinds if not pa.types.is_nested(kinds[name]) and name not in PLACES]
    keys.sort(key=lambda name: pa.types.is_floating(kinds[name]))
    return rows.sort_by([(name, "ascending") for name in keys])


def round_datasets(settings: Settings) -> dict[str, pa.Table]:
    """Round BigQuery's datasets to single precision, as DuckDB's are; return what they were.

    BigQuery has no such type. What looks at ranks and quantiles of features would differ in the
    places where rounding makes two values one; of rounded features both must say the same.
    """
    cloud = BigQuery(settings)
    were = {}
    for name in made(settings):
        schema = table_of_duckdb(settings, name).schema
        if not any(pa.types.is_float32(kind) for kind in schema.types):
            continue
        rows = were[name] = rows_of(settings, name)
        for place, column in enumerate(schema):
            if pa.types.is_float32(column.type):
                values = rows[column.name].cast(pa.float64())
                single = np.asarray(values.fill_null(0.0)).astype(np.float32).astype(np.float64)
                rounded = pa.array(single, mask=np.asarray(values.is_null()))
                rows = rows.set_column(place, column.name, rounded)
        cloud.query(f"delete from `{cloud.model(name)}` where true")
        load(cloud, cloud.model(name), rows)
    return were


def after_models(settings: Settings) -> dict[str, Any]:
    """Train on DuckDB, build there what follows, copy the predictions; return what was trained."""
    dbt("duckdb", settings, "build", *ONLY_TABLES, "--select", "path:models/models")
    dbt("duckdb", settings, "build", *ONLY_TABLES, "--select", "path:models/predictions")
    tell_the_future(settings)
    dbt("duckdb", settings, "build", *ONLY_TABLES, "--select", *AFTER_MODELS)
    copy_predictions(settings)
    return imported_models(settings)


def made(settings: Settings) -> list[str]:
    """Return the tables and views of the project that DuckDB has and dbt built on both.

    Without the bookkeeping of refreshes, seeds, models and the predictions that were copied.
    """
    names = {
        row[f"{kind}_name"]
        for kind in ("table", "view")
        for row in table_of_duckdb(settings, f"duckdb_{kind}s()").to_pylist()
        if row["schema_name"] == "main" and not row["internal"]
    }
    return sorted(name for name in names - OTHERS if not name.startswith("ml_"))


def said(settings: Settings) -> dict[str, pa.Table]:
    """Return what the scoring loop said of two bars, which no market has."""
    with_times = "opened_at, opened_at + interval 5 minute as closed_at"
    bars = (
        "select 'binance' as exchange, 'um' as market, symbol, 5 as interval_minutes, "
        f"{with_times}, closed_at as available_at, closed_at as served_at "
        "from (values ('BTCUSDT', timestamptz '2025-06-10 11:00'), "
        "('ETHUSDT', timestamptz '2025-06-10 11:05')) as bars (symbol, opened_at)"
    )
    signals = (
        f"select 'ml_order_flow' as model_name, '1' as model_version, 'champion' as stage, *, "
        "0.75 as probability, 0.6 as threshold, 1 as signal, 'above' as reason, "
        "'onnx' as answered_by, 'a1' as features_sha256, false as is_late, "
        f"served_at as heard_at, '[0.25, 0.75]' as probabilities from ({bars})"
    )
    features = (
        f"""select 'ds_order_flow' as dataset, *, '{{"vpin": 0.5}}' as features from ({bars})"""
    )
    return {
        name: table_of_duckdb(settings, f"raw.{name} union all by name {sql}")
        for name, sql in {"signals": signals, "served_features": features}.items()
    }
