"""The volatility regime of a bar that has just closed is the one of the whole history."""

from pathlib import Path

import duckdb

from serving.manifest import compiled
from serving.plan import CHANGED, CHANGES

MODEL = "int_volatility_regimes"
#: A run as long as the window, broken off once; many bars look alike, so that places are shared.
AVERAGES = """
    create table averages as
    select
        'binance' as exchange, 'um' as market, symbol, 5 as interval_minutes,
        timestamp '2025-01-01' + to_minutes(5 * (bar + if(bar >= 400, 3, 0))) as opened_at,
        if(bar >= 400, bar - 399, bar + 1) as bars_in_run,
        round(abs(sin(bar * (if(symbol = 'BTCUSDT', 7, 11)))), 1) as atr_pct_14
    from range(3000) as bars (bar), (values ('BTCUSDT'), ('ETHUSDT')) as symbols (symbol)
"""


def test_regimes_of_new_bars_are_those_of_the_whole_history(tmp_path: Path) -> None:
    database = tmp_path / "tapehouse.duckdb"
    queries = []
    for changed in (None, CHANGED):
        manifest = compiled(database, ["--select", MODEL], changed_from=changed)
        nodes = {node["name"]: node for node in manifest["nodes"].values()}
        averages = nodes["int_bar_averages"]["relation_name"]
        queries.append(nodes[MODEL]["compiled_code"].replace(averages, "averages"))
    history, live = queries
    with duckdb.connect(":memory:") as connection:
        connection.execute(AVERAGES)
        connection.execute(
            f"create table {CHANGES} as "
            "select max(opened_at) - interval 1000 minutes as changed_at from averages"
        )
        found = connection.sql(f"from ({live}) order by all").fetchall()
        expected = connection.sql(
            f"from ({history}) where opened_at >= {CHANGED} order by all"
        ).fetchall()
    assert live != history
    assert found == expected
    assert {row[-1] for row in found} == {None, 0, 1, 2}
