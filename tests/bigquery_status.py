"""The table of what was seen of each model on BigQuery: docs/reference/bigquery.md."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

PAGE = Path(__file__).resolve().parents[1] / "docs" / "reference" / "bigquery.md"
IS_WHOLE = os.environ.get("TAPEHOUSE_TEST_BIGQUERY") == "all"
CHECKS = ("analyser", "emulator", "parity", "tests", "unit tests", "days")
OF_ANALYSES = ("analyser", "emulator", "parity")
HEAD = """# The models on BigQuery

Written by `make test-bigquery`; what it means is in `docs/guides/bigquery.md`.

- **analyser**: Google's own analyser resolves the model's statements and their types: the one
  that makes it anew and, where it is incremental, the one that refreshes it.
- **emulator**: dbt built and refreshed it on the emulator of BigQuery, and Google's analyser
  resolves every statement that dbt sent, those of its tests and unit tests too. The emulator runs
  no BigQuery ML: models are not made there, and predictions are copied there from DuckDB, whose
  models stand in the variable `imported_models`.
- **parity**: the values of every column are those of DuckDB, numbers to nine digits, NULL in the
  same places.
- **tests**, **unit tests**: dbt's, run on the emulator, and how many of them pass.
- **days**: the daily partitions that a refresh of one changed day reads, the most of any table;
  *all* is a whole history. What is made anew, and views, have none.

A dataset of the seed `strategies` is made by `ds_strategies`, whose tests are about all of them.

"""

Status = dict[str, dict[str, str]]


@pytest.fixture(scope="session")
def bigquery_status() -> Iterator[Status]:
    """What tests found of each model, by check; the whole run writes it down."""
    status: Status = {}
    yield status
    if IS_WHOLE and {check for found in status.values() for check in found} == set(CHECKS):
        models = {name: found for name, found in status.items() if " " not in name}
        analyses = {
            name.removeprefix("analysis "): found
            for name, found in status.items()
            if name not in models
        }
        PAGE.write_text(
            HEAD + table("model", models, CHECKS) + "\n" + table("analysis", analyses, OF_ANALYSES)
        )


def table(what: str, status: Status, checks: tuple[str, ...]) -> str:
    rows = [
        (f"`{name}`", *(found.get(check, "-") for check in checks))
        for name, found in sorted(status.items())
    ]
    lines = [(what, *checks), ("---",) * (1 + len(checks)), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines).replace(" --- ", "---")
