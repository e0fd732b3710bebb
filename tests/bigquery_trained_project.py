"""A small dbt project on BigQuery: bars of two symbols, a dataset, a model and its predictions.

It has this project's macros and the file of a model of predictions, word for word. Where no
BigQuery ML runs, `ml.predict` says of every row 0.75 for true.
"""

import os
import subprocess
import sys
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import MappingProxyType

import pyarrow as pa
import yaml
from bigquery_fixtures import land_in_bigquery

from ingest.bigquery import BigQuery, arrow_type
from ingest.raw_tables import raw_tables
from ingest.settings import Settings

ROOT = Path(__file__).resolve().parents[1]
START = datetime(2025, 1, 1, tzinfo=UTC)
BARS_A_DAY = 24
SYMBOLS = ("BTCUSDT", "ETHUSDT")
KEY = "exchange, market, symbol, interval_minutes, opened_at"
BY_DAY = {
    "+partition_by": {"field": "opened_at", "data_type": "timestamp"},
    "+cluster_by": ["symbol"],
}
RECORDED = {"+post-hook": "{{ record_refresh() }}"}
PREDICT = "select {{ ml_without_trial(model, 'ml.predict(model ' ~ model ~ ', (' ~ query ~ '))') }}"
STUB = """
    select
        true as predicted_{{ ml_label(model) }},
        [struct(true as label, 0.75 as prob), struct(false as label, 0.25 as prob)]
            as predicted_{{ ml_label(model) }}_probs,
        *
    from ({{ query }})
"""
MODELS = {
    "int_ticks": """
        select
            exchange, market, symbol, 60 as interval_minutes, open_time as opened_at,
            timestamp_add(open_time, interval 60 minute) as closed_at,
            timestamp_add(open_time, interval 60 minute) as available_at,
            open as flow, volume as noise, close > open as is_up
        from {{ source('raw', 'klines') }}
        {% if is_incremental() %} where open_time >= {{ changed_from() }}{% endif %}
    """,
    "ds_ticks": """
        select
            *,
            case
                when place > 0.8 then 'test' when place > 0.6 then 'validation' else 'train'
            end as split
        from (
            select
                *, timestamp_add(closed_at, interval 60 minute) as label_end_at,
                percent_rank() over (order by opened_at) as place
            from {{ ref('int_ticks') }}
        )
    """,
}
COLUMNS = {"columns": KEY.split(", ")}
TESTS = {
    "name": "int_ticks",
    "data_tests": [
        {"unique_combination_of_columns": {"name": "one_row_a_bar", "arguments": COLUMNS}}
    ],
    "columns": [
        {"name": "flow", "data_tests": [{"not_null": {"name": "a_flow"}}]},
        {
            "name": "noise",
            "data_tests": [{"unique": {"name": "any_time", "config": {"severity": "warn"}}}],
        },
    ],
}
CONFIGS = {
    "int_ticks": {
        "+materialized": "incremental",
        "+incremental_strategy": "insert_overwrite",
        "+event_time": "opened_at",
        **BY_DAY,
        **RECORDED,
    },
    "ds_ticks": {"+materialized": "table", **BY_DAY, **RECORDED},
}
ADDED = {"+incremental_strategy": "merge", **BY_DAY, **RECORDED}
LINEAR = {"ticks": {"model_type": "LOGISTIC_REG", "max_iterations": 5}}


def write(
    directory: Path,
    raw_dataset: str,
    *,
    has_ml: bool,
    trained: Mapping[str, Mapping[str, object]] = LINEAR,
    analyses: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Write the project with a model for each set of options; `has_ml`: where BigQuery ML runs."""
    project = yaml.safe_load((ROOT / "dbt_project" / "dbt_project.yml").read_text())
    project["on-run-start"] = project["on-run-start"][1:]
    predictions = {f"pred_{name}": ADDED for name in trained}
    project["models"] = {"tapehouse": CONFIGS | predictions}
    (directory / "dbt_project.yml").write_text(yaml.safe_dump(project))
    for file in (ROOT / "dbt_project" / "macros").rglob("*.sql"):
        copy = directory / file.relative_to(ROOT / "dbt_project")
        copy.parent.mkdir(parents=True, exist_ok=True)
        text = file.read_text()
        copy.write_text(text if has_ml else text.replace(PREDICT, STUB))
        assert (PREDICT in text) == (file.name == "ml_predict.sql")
    (directory / "tests").symlink_to(ROOT / "dbt_project" / "tests")
    source = {
        "name": "raw",
        "schema": raw_dataset,
        "tables": [{"name": "klines", "config": {"event_time": "open_time"}}],
    }
    given = {
        "materialized": "ml_model",
        "input_label_cols": ["is_up"],
        "data_split_method": "CUSTOM",
        "data_split_col": "split",
        "key_columns": [*KEY.split(", "), "place", "available_at"],
        "label_start_column": "closed_at",
        "label_end_column": "label_end_at",
    }
    predicted = (ROOT / "dbt_project/models/predictions/pred_order_flow.sql").read_text()
    predicted = predicted.replace("ds_order_flow", "ds_ticks")
    files = {f"models/{name}": sql for name, sql in MODELS.items()}
    files |= {f"analyses/{name}": sql for name, sql in analyses.items()}
    for name, options in trained.items():
        arguments = ", ".join(f"{option}={value!r}" for option, value in (given | options).items())
        config = f"{{{{ config({arguments}) }}}}"
        files[f"models/ml_{name}"] = f"{config} select * from {{{{ ref('ds_ticks') }}}}"
        files[f"models/pred_{name}"] = predicted.replace("order_flow", name)
    for folder in ("models", "analyses"):
        (directory / folder).mkdir()
    for name, sql in files.items():
        (directory / f"{name}.sql").write_text(sql)
    described = {"sources": [source], "models": [TESTS]}
    (directory / "models" / "described.yml").write_text(yaml.safe_dump(described))


def land(
    settings: Settings,
    days: Iterable[int],
    *,
    hours: Iterable[int] | None = None,
    is_whole: bool = True,
) -> None:
    """Land bars of some days of 2025, counted from 0, at all hours or some; or without a price."""
    times = [
        START + timedelta(days=day, hours=hour)
        for day in days
        for hour in hours or range(BARS_A_DAY)
    ]
    schema = pa.schema([(f.name, arrow_type(f)) for f in raw_tables()["klines"].schema])
    rows = [
        {
            "exchange": "binance",
            "market": "um",
            "symbol": symbol,
            "open_time": time,
            "open": 100.0 + (7 * time.hour + time.day + place) % 13 if is_whole else None,
            "close": 106.0 + time.hour % 5 - place,
            "volume": float(time.hour),
        }
        for time in times
        for place, symbol in enumerate(SYMBOLS)
    ]
    land_in_bigquery(settings, {"klines": pa.Table.from_pylist(rows, schema)})


def dbt(directory: Path, *arguments: str, fails: bool = False) -> str:
    """Run dbt on the project, failing loudly if it does not do as it should."""
    done = subprocess.run(
        [
            *(str(Path(sys.executable).parent / "dbt"), *arguments, "--no-use-colors"),
            *("--target", "bigquery", "--project-dir", str(directory), "--profiles-dir", str(ROOT)),
            *("--target-path", str(directory / "target"), "--log-path", str(directory / "logs")),
        ],
        env=os.environ,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == int(fails), done.stdout[-6000:] + done.stderr[-2000:]
    return done.stdout


def rows_of(settings: Settings, sql: str) -> list[tuple[object, ...]]:
    """Return the rows of a query in which `{}` stands before a table's name."""
    rows = BigQuery(settings).query(sql.replace("{}", f"{settings.bigquery_dataset}."))
    return [tuple(row.values()) for row in rows.to_pylist()]
