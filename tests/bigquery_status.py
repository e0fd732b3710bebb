"""The table of what was seen of each model on BigQuery: docs/reference/bigquery.md."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from bigquery_differences import EXPECTED
from bigquery_nulls import ALL_NULL

PAGE = Path(__file__).resolve().parents[1] / "docs" / "reference" / "bigquery.md"
IS_WHOLE = os.environ.get("TAPEHOUSE_TEST_BIGQUERY") == "all"
CHECKS = ("analyser", "emulator", "parity", "rows", "tests", "unit tests", "days")
OF_ANALYSES = ("analyser", "emulator", "parity", "rows")
SERVICE = "service"
# What was compared, beside the names of models.
DATA = "data of the run"
HEAD = """# The models on BigQuery

Written by `make test-bigquery`; what it means is in `docs/guides/bigquery.md`.

- **analyser**: Google's own analyser resolves the model's statements and their types: the one
  that makes it anew, where it is incremental the one that refreshes it, and where it asks models
  the one for imported models. It knows only the features and functions that are listed in
  `tests/bigquery_language.py`, all of them BigQuery's.
- **emulator**: dbt built and refreshed it on the emulator of BigQuery, and Google's analyser
  resolves every statement that dbt sent, those of its tests and unit tests too. The emulator runs
  no BigQuery ML: models are not made there, and predictions are copied there from DuckDB, whose
  models stand in the variable `imported_models`.
- **parity**: the values of every column are those of DuckDB, NULL in the same places. Numbers are
  equal to 1e-9 of their size, or to 1e-12 of the largest of their column, which is what rounding
  leaves of a difference of equal numbers. Features of datasets are compared in single precision,
  which they have on DuckDB and BigQuery has not; what looks at their ranks and quantiles (`qlt_`)
  is built on BigQuery of its own features so rounded.
- **rows**: how many were compared. They are {rows}.
- **tests**, **unit tests**: dbt's, run on the emulator, and how many of them pass.
- **days**: the daily partitions that a refresh of one changed day reads, the most of any table;
  *all* is a whole history. What is made anew, and views, have none.
- **service**: the same on Google's service, with credentials: *yes* where dbt built it, its tests
  passed and its values were those of DuckDB. {service}

A dataset of the seed `strategies` is made by `ds_strategies`, whose tests are about all of them.

"""

DIFFERENCES = """
## Columns that differ by design

A difference that is not here fails the run, and so does one that is here and does not occur. What
holds of them instead is in `tests/bigquery_differences.py`.

"""
NOTHING = """
## What had nothing to compare

Every table has rows. These columns are NULL in every one of them in this run's data; any other
fails the run. Every column of the features and labels has values.

"""
Status = dict[str, dict[str, str]]


def note(status: Status, place: str, name: str, check: str, said: str) -> None:
    """Write down what a check said of a model where it was made, on the emulator or the service.

    The service has one column: *yes*, or what went wrong there first.
    """
    found = status.setdefault(name, {})
    if place != SERVICE:
        found[check] = said
        return
    passed, _, all_of_them = said.partition(" of ")
    is_well = check == "rows" or said == "yes" or (bool(all_of_them) and passed == all_of_them)
    if found.get(SERVICE, "yes") == "yes":
        found[SERVICE] = "yes" if is_well else f"{check}: {said}"


@pytest.fixture(scope="session")
def bigquery_status() -> Iterator[Status]:
    """What tests found of each model, by check; the whole run writes it down."""
    status: Status = {}
    yield status
    checks = {check for found in status.values() for check in found} - {SERVICE}
    if IS_WHOLE and checks == set(CHECKS) and DATA in status:
        PAGE.write_text(page(status))


def page(status: Status) -> str:
    """Return the page of what was found."""
    data = status[DATA]["rows"]
    others = {name: found for name, found in status.items() if name != DATA}
    models = {name: found for name, found in others.items() if " " not in name}
    analyses = {
        name.removeprefix("analysis "): found
        for name, found in others.items()
        if name not in models
    }
    is_run = any(SERVICE in found for found in others.values())
    service = "" if is_run else "It was not asked in this run."
    return (
        HEAD.format(rows=data, service=service).replace("  \n", "\n").replace(" \n", "\n")
        + table("model", models, (*CHECKS, SERVICE))
        + "\n"
        + table("analysis", analyses, (*OF_ANALYSES, SERVICE))
        + DIFFERENCES
        + rows_of("column", {name: allowed.reason for name, allowed in EXPECTED.items()})
        + NOTHING
        + rows_of("column", ALL_NULL)
    )


def rows_of(what: str, reasons: dict[str, str]) -> str:
    """Return a table of names, those of one reason in one row."""
    names: dict[str, list[str]] = {}
    for name, reason in sorted(reasons.items()):
        names.setdefault(reason, []).append(f"`{name}`")
    lines = [(what, "why"), ("---",) * 2, *((", ".join(of), why) for why, of in names.items())]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines).replace(" --- ", "---")


def table(what: str, status: Status, checks: tuple[str, ...]) -> str:
    rows = [
        (f"`{name}`", *(found.get(check, "-") for check in checks))
        for name, found in sorted(status.items())
    ]
    lines = [(what, *checks), ("---",) * (1 + len(checks)), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines).replace(" --- ", "---")
