"""Dagster: one graph, nothing phantom, and the same signals as dbt alone."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from dagster import materialize
from serving_fixtures import SYMBOLS, built, copy, exchange, ingested, market, signals

from ingest import warehouse
from ingest.settings import Settings
from ingest.simulator import Simulator
from orchestration import ui
from orchestration.ingestion import raw_tables

__all__ = ["built", "exchange", "ingested", "market"]

MODELS = [
    f"ml_order_flow{variant}"
    for variant in ("", "_forest", "_linear", "_network", "_shuffled", "_stacked")
]
GRAPH = """
import json
from orchestration.definitions import defs

graph = defs.resolve_asset_graph()
assets = {key.to_user_string(): graph.get(key) for key in graph.materializable_asset_keys}
print(json.dumps({
    "phantom": [
        key.to_user_string() for key in graph.external_asset_keys if not graph.get(key).description
    ],
    "landed_by_users": sorted(key.to_user_string() for key in graph.external_asset_keys),
    "groups": sorted({asset.group_name for asset in assets.values()}),
    "undescribed": sorted(name for name, asset in assets.items() if not asset.description),
    "raw": sorted(name for name in assets if name.startswith("raw/")),
    "parents": {
        name: sorted(key.to_user_string() for key in assets[name].parent_keys)
        for name in ("stg_klines", "scored_bars")
    },
    "checks": len(graph.asset_check_keys),
    "schedules": {
        name: [schedule.cron_schedule, schedule.job_name]
        for name in ("hourly", "daily")
        for schedule in [defs.resolve_schedule_def(name)]
    },
    "checked_for_leaks": sorted(
        key.asset_key.to_user_string() for key in graph.asset_check_keys if key.name == "no_leak"
    ),
    "checking": [
        job
        for job in ("refresh", "retrain")
        if "check_leaks" in {node.name for node in defs.resolve_job_def(job).nodes}
    ],
    "trained": {
        job: sorted(
            key.to_user_string()
            for key in defs.resolve_job_def(job).asset_layer.executable_asset_keys
            if key.to_user_string().startswith("ml_")
        )
        for job in ("refresh", "retrain")
    },
}))
"""


def run(settings: Settings, *arguments: str) -> str:
    environment = ui.environment(settings) | {
        "TAPEHOUSE_EXCHANGE_URL": settings.exchange_url or "http://127.0.0.1:9",
        "TAPEHOUSE_SYMBOLS": ",".join(settings.symbols),
    }
    command = [sys.executable, *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]
    return done.stdout


def give_parsed(settings: Settings, manifest: dict[str, Any]) -> None:
    """Leave dbt's manifest where Dagster looks for it, so that it need not parse the project."""
    parsed = settings.dagster_directory / "manifest" / "manifest.json"
    parsed.parent.mkdir(parents=True)
    parsed.write_text(json.dumps(manifest))


def test_the_graph_reaches_from_the_exchange_to_the_signals_without_phantoms(
    tmp_path: Path, manifest: dict[str, Any]
) -> None:
    settings = Settings(database=tmp_path / "tapehouse.duckdb")
    give_parsed(settings, manifest)
    graph = json.loads(run(settings, "-c", GRAPH).splitlines()[-1])
    kinds = (
        *("books", "funding", "garch_parameters", "klines", "liquidations", "mark_prices"),
        *("news_scores", "open_interest", "trades"),
    )
    assert graph["checks"] > 50
    del graph["checks"]
    tables = {"feat_ta", "feat_calendar", "lbl_return", "lbl_high_low"}
    assert tables <= set(graph.pop("checked_for_leaks"))
    assert graph == {
        "phantom": [],
        "landed_by_users": [
            *("raw/book_gaps", "raw/macro_bars", "raw/news", "raw/served_features", "raw/signals"),
        ],
        "groups": [
            *("datasets", "features", "intermediate", "labels", "models", "predictions", "quality"),
            *("raw", "scoring", "seeds", "signals", "staging", "trading"),
        ],
        "undescribed": [],
        "raw": [f"raw/{kind}" for kind in kinds],
        "parents": {"stg_klines": ["raw/klines"], "scored_bars": ["sig_order_flow"]},
        "schedules": {"hourly": ["5 1-23 * * *", "refresh"], "daily": ["5 0 * * *", "retrain"]},
        "checking": ["retrain"],
        "trained": {"refresh": [], "retrain": MODELS},
    }


def test_the_graph_over_bigquery_lands_there_and_leaves_out_what_is_duckdbs_alone(
    cloud_settings: Settings, exchange: Simulator, manifest: dict[str, Any]
) -> None:
    give_parsed(cloud_settings, manifest)
    from orchestration.definitions import definitions

    graph = definitions(cloud_settings).resolve_asset_graph()
    assert [key for key in graph.asset_check_keys if key.name == "no_leak"] == []
    outside = {key.path[-1] for key in graph.external_asset_keys}
    assert outside == {
        *("book_gaps", "garch_parameters", "macro_bars", "news", "news_scores"),
        *("served_features", "signals"),
    }
    assert all(graph.get(key).description for key in graph.external_asset_keys)
    where = cloud_settings.model_copy(update={"exchange_url": exchange.url, "symbols": SYMBOLS})
    klines = next(asset for asset in raw_tables if asset.key.path[-1] == "klines")
    for landed in (2 * 4 * 1440, 0):
        result = materialize([klines], resources={"settings": where})
        (event,) = result.asset_materializations_for_node("raw__klines")
        counts = {name: event.metadata[name].value for name in ("landed", "dagster/row_count")}
        assert counts == {"landed": landed, "dagster/row_count": 2 * 4 * 1440}


def test_dagster_lands_raw_rows_and_builds_models_on_them(
    tmp_path: Path, exchange: Simulator, manifest: dict[str, Any]
) -> None:
    settings = Settings(
        database=tmp_path / "tapehouse.duckdb", exchange_url=exchange.url, symbols=SYMBOLS
    )
    give_parsed(settings, manifest)
    asked = ("--select", "raw/klines,stg_klines,int_klines")
    run(
        settings, "-m", "dagster", "asset", "materialize", "-m", "orchestration.definitions", *asked
    )
    with warehouse.reading(settings.database) as connection:
        counts = connection.execute(
            "select (select count(*) from raw.klines), (select count(*) from int_klines)"
        ).fetchall()
    minutes = 4 * 1440
    assert counts == [(2 * minutes, 2 * sum(minutes // length for length in (1, 5, 15, 60)))]


@pytest.mark.long
def test_materializing_all_with_one_process_per_step_gives_the_signals_of_dbt_alone(
    ingested: Path, built: Path, tmp_path: Path, exchange: Simulator
) -> None:
    copy(ingested, tmp_path / "warehouse")
    settings = Settings(
        database=tmp_path / "warehouse" / "tapehouse.duckdb",
        exchange_url=exchange.url,
        symbols=SYMBOLS,
    )
    job = ("-m", "dagster", "job", "execute", "-m", "orchestration.definitions", "-j", "retrain")
    run(settings, *job)
    expected = signals(Settings(database=built / "tapehouse.duckdb"))
    assert len(expected) > 0
    assert signals(settings) == expected


def test_the_home_that_the_ui_prepares_sends_nothing_out(tmp_path: Path) -> None:
    settings = Settings(database=tmp_path / "tapehouse.duckdb")
    home = Path(ui.environment(settings)["DAGSTER_HOME"])
    assert home == tmp_path / "dagster"
    assert yaml.safe_load((home / "dagster.yaml").read_text())["telemetry"] == {"enabled": False}
