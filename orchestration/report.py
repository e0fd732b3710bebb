"""What the commands print: rich tables, plain text where no terminal is attached."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from itertools import groupby
from pathlib import Path

import duckdb
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from orchestration.costs import Cost
from serving.leaks import Leak, Proof
from serving.scoring import Scored

KINDS = ("klines", "trades", "books", "funding", "open_interest", "liquidations")
SHOWN_SYMBOLS = 5
SIGNALS = {1: "long", -1: "short", 0: "flat"}
QUERIES = (
    "select * from trd_verdict",
    "select * from sig_order_flow order by opened_at desc limit 10",
    "select * from registry.feature_importance order by importance_gain desc limit 10",
)


def print_scored(scored: Sequence[Scored], *, console: Console | None = None) -> None:
    """Print what a scoring run did, one row per model."""
    rows = [
        (
            run.model,
            f"{run.bars:,}",
            _time(run.first_opened_at),
            _time(run.last_opened_at),
            f"{run.up:,}",
            f"{run.down:,}",
            f"{run.flat:,}",
            f"{run.skipped:,}",
        )
        for run in scored
    ]
    names = ("model", "bars", "first bar", "last bar", "up", "down", "flat", "skipped")
    (console or Console()).print(_table("Scored", names, rows))


# What statements do to a model, in words.
_KINDS = {
    "refreshed": "models that are refreshed, their queries",
    "written": "the rows that these replace",
    "made anew": "tables made anew",
    "tested": "data tests",
    "asked": "asking the bookkeeping what changed",
}


def print_costs(costs: Iterable[Cost], price: float, *, console: Console | None = None) -> None:
    """Print what each model reads of the tables of which it reads most, and the sums."""
    console = console or Console(highlight=False)
    groups: dict[tuple[str, str], list[Cost]] = {}
    for cost in costs:
        groups.setdefault((cost.model, cost.kind), []).append(cost)
    table = Table("model", "", "reads most of", box=SIMPLE, title="One refresh on BigQuery")
    for name in ("days", "of", "MB read", "MB billed", "dollars"):
        table.add_column(name, justify="right")
    table.add_column("")
    sums = dict.fromkeys(_KINDS, 0)
    for (model, kind), parts in sorted(
        groups.items(), key=lambda each: -sum(cost.billed for cost in each[1])
    ):
        most = max(parts, key=lambda cost: (cost.is_too_much, cost.read))
        billed = sum(cost.billed for cost in parts)
        sums[kind] += billed
        notes = {cost.reason or "reads its whole history" for cost in parts if not cost.is_bounded}
        table.add_row(
            *(model, kind, most.table, str(most.days), str(most.all_days)),
            *(f"{sum(c.read for c in parts) / 1e6:,.1f}", f"{billed / 1e6:,.1f}"),
            f"{billed / 2**40 * price:.5f}",
            "" if most.is_rebuilt else "; ".join(sorted(notes)),
        )
    console.print(table)
    for kind, what in _KINDS.items():
        amount = sums[kind]
        console.print(f"{what}: {amount / 1e9:,.2f} GB, {amount / 2**40 * price:.4f} dollars")
    for cost in (cost for parts in groups.values() for cost in parts if cost.is_too_much):
        console.print(
            f"{cost.model}, {cost.kind}, reads all {cost.all_days:,} days of {cost.table}, "
            f"{cost.history / 1e6:,.0f} MB: bound its partition column by a constant"
        )


def print_proof(proof: Proof, *, console: Console | None = None) -> None:
    """Print the leaks found, one row per column, and what was compared."""
    console = console or Console()
    if proof.leaks:
        table = Table(
            *("model", "column", "rows", "first differing bar (UTC)", "from all rows"),
            *("known at the cut-off", "cut-off (UTC)"),
            title="Leaks",
            title_justify="left",
            box=SIMPLE,
        )
        for column in table.columns:
            column.overflow = "fold"
        for (model, name), leaks in groupby(proof.leaks, lambda leak: (leak.model, leak.column)):
            series = list(leaks)
            first = min(series, key=lambda leak: leak.first_opened_at)
            count = sum(leak.rows for leak in series)
            values = ("NULL" if value is None else value for value in (first.whole, first.known))
            table.add_row(
                model, name, f"{count:,}", _bar(first, series), *values, str(first.cut_off)
            )
        console.print(table)
    moments = ", ".join(map(str, proof.cut_offs))
    tables = len({(leak.model) for leak in proof.leaks})
    verdict = f"leaks in {tables} of {len(proof.rows)} tables" if tables else "no leak"
    console.print(
        f"{verdict}: {sum(proof.rows.values()):,} rows of {', '.join(proof.rows)} compared at "
        f"{moments}",
        soft_wrap=True,
    )


def _bar(first: Leak, series: Sequence[Leak]) -> str:
    others = f", in {len(series)} series" if len(series) > 1 else ""
    return (
        f"{first.market} {first.symbol} {first.interval_minutes}m {first.first_opened_at}{others}"
    )


def print_report(
    warehouse: duckdb.DuckDBPyConnection, database: Path, console: Console, *, note: str
) -> None:
    """Print what was ingested, how good the model is and what to look at next."""
    console.print(_ingested(warehouse))
    console.print(_evaluation(warehouse))
    console.print(_signals(warehouse))
    console.print(_verdict(warehouse))
    ((verdict, passed, count),) = warehouse.execute(
        "select any_value(verdict), count(*) filter (where is_passed), count(*) from trd_verdict "
        "where strategy = 'model'"
    ).fetchall()
    console.print(f"Verdict: {verdict}, {passed} of {count} criteria passed. {note}", style="bold")
    ensembles = warehouse.execute(
        "select model_name, any_value(verdict), count(*) filter (where is_passed) from trd_verdict "
        "where strategy <> 'model' group by all order by all"
    ).fetchall()
    told = (f"{name} {verdict} ({passed} of {count})" for name, verdict, passed in ensembles)
    console.print(f"Ensembles: {', '.join(told)}")
    console.print("\nWhere to look next", style="bold")
    console.print(f"  warehouse  {database}")
    for query in QUERIES:
        console.print(f"  SQL        {query}")
    console.print(
        f'  run it     .venv/bin/python -c "import duckdb; '
        f"print(duckdb.connect('{database}', read_only=True).sql('{QUERIES[0]}'))\""
    )
    console.print(f"  lineage    TAPEHOUSE_DATABASE={database} make ui")


def _ingested(warehouse: duckdb.DuckDBPyConnection) -> Table:
    counts: dict[tuple[str, str], int] = {}
    for kind in KINDS:
        for symbol, count in warehouse.execute(
            f"select symbol, count(*) from raw.{kind} group by symbol"
        ).fetchall():
            counts[kind, symbol] = count
    totals: dict[str, int] = {}
    for (_, symbol), count in counts.items():
        totals[symbol] = totals.get(symbol, 0) + count
    shown = sorted(totals, key=lambda symbol: -totals[symbol])[:SHOWN_SYMBOLS]
    others = set(totals) - set(shown)
    rejects = dict(
        warehouse.execute("select kind, count(*) from raw.raw_rejects group by kind").fetchall()
    )
    rows = [
        (
            kind,
            *(f"{counts.get((kind, symbol), 0):,}" for symbol in shown),
            *([f"{sum(counts.get((kind, symbol), 0) for symbol in others):,}"] if others else []),
            f"{rejects.get(kind, 0):,}",
        )
        for kind in KINDS
    ]
    names = ("rows", *shown, *([f"{len(others)} others"] if others else []), "rejected")
    return _table("Ingested", names, rows)


def _evaluation(warehouse: duckdb.DuckDBPyConnection) -> Table:
    rows = warehouse.execute(
        """
        select
            strategy, roc_auc, trade_count, gross_bps, cost_bps, net_bps, sharpe_per_block,
            t_statistic, max_drawdown_bps
        from trd_evaluation
        where model_version = (select any_value(model_version) from trd_verdict)
        order by strategy <> 'model', strategy
        """
    ).fetchall()
    return _table(
        "Out of sample, in basis points",
        ("strategy", "AUC", "trades", "gross", "costs", "net", "Sharpe/h", "t", "drawdown"),
        [
            (
                strategy.removeprefix("ensemble_"),
                _number(auc, 3),
                _number(trades, 0),
                *(_number(value, 0) for value in (gross, cost, net)),
                _number(sharpe, 2),
                _number(t, 1),
                _number(drawdown, 0),
            )
            for strategy, auc, trades, gross, cost, net, sharpe, t, drawdown in rows
        ],
    )


def _signals(warehouse: duckdb.DuckDBPyConnection) -> Table:
    rows = warehouse.execute(
        """
        select symbol, closed_at, probability, signal
        from sig_order_flow
        where model_version = (select any_value(model_version) from trd_verdict)
        qualify row_number() over (partition by symbol order by closed_at desc) = 1
        order by symbol
        """
    ).fetchall()
    return _table(
        "Last signals",
        ("symbol", "bar closed", "P(up)", "signal"),
        [
            (symbol, _time(closed_at), _number(probability, 3), SIGNALS[signal])
            for symbol, closed_at, probability, signal in rows
        ],
    )


def _verdict(warehouse: duckdb.DuckDBPyConnection) -> Table:
    rows = warehouse.execute(
        "select reason, is_passed from trd_verdict where strategy = 'model' "
        "order by criterion_number"
    ).fetchall()
    table = _table("Criteria", ("passed",), [])
    table.add_column("reason")
    for reason, is_passed in rows:
        table.add_row("yes" if is_passed else "no", reason)
    return table


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:,.{digits}f}"


def _table(title: str, names: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    table = Table(
        title=title, title_justify="left", box=SIMPLE, pad_edge=False, padding=(0, 1, 0, 0)
    )
    for name in names:
        table.add_column(name, justify="left" if name == names[0] else "right", overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table


def _time(time: datetime | None) -> str:
    return "" if time is None else f"{time:%Y-%m-%d %H:%M}"
