"""Order-flow features of books and microstructure bars of trades, by dbt on DuckDB.

`python benchmarks/bench_orderflow.py [books] [trades]`: a week of one symbol, by default 604,800
books of twenty levels and 10 million trades. Trades are compared with a bare GROUP BY of the sums,
extremes and counts of the same columns by minute. Times are those of the models' SQL.
"""

import sys
import tempfile
from pathlib import Path
from time import perf_counter

import duckdb
import market

START = "timestamptz '2020-01-01 00:00+00'"
BOOKS = f"""
insert into raw.books by name
with ticks as (
    select i, round(1000 + sum(random() - 0.5) over (order by i) / 10, 1) as best
    from range({{books}}) as numbers(i)
)
select
    'binance' as exchange, 'um' as market, 'BTCUSDT' as symbol, i as last_update_id,
    {START} + to_seconds(i * 604800.0 / {{books}}) as transact_time,
    [{{bids}}] as bid_prices, [{{quantities}}] as bid_quantities,
    [{{asks}}] as ask_prices, [{{quantities}}] as ask_quantities,
    'file' as source, timestamptz '2030-01-01 00:00+00' as received_at
from ticks
"""
TRADES = f"""
insert into raw.trades by name
with drawn as (
    select
        i, random() < 0.5 as is_buyer_maker, round(random() * 5 + 0.001, 3) as quantity,
        round(1000 + 50 * sin(i / 1e6) + random(), 1) as price
    from range({{trades}}) as numbers(i)
)
select
    'binance' as exchange, 'um' as market, 'BTCUSDT' as symbol, false as is_aggregate,
    i as trade_id, price, quantity, round(price * quantity, 4) as quote_quantity,
    {START} + to_seconds(i * 604800.0 / {{trades}}) as transact_time, is_buyer_maker,
    'archive' as source, timestamptz '2030-01-01 00:00+00' as received_at
from drawn
"""
BARE = """
create table bare as
select
    exchange, market, symbol, is_aggregate, date_trunc('minute', transact_time) as minute_at,
    count(*), min_by(price, trade_id), max_by(price, trade_id), min(quantity), max(quantity),
    sum(quantity), sum(quote_quantity), sum(case when is_buyer_maker then 0 else quantity end),
    sum(case when is_buyer_maker then quantity else 0 end), sum(quantity * quantity),
    sum(quantity * quantity * quantity), max(received_at)
from raw.trades
group by all
"""


def main() -> None:
    """Print rows a second, and of trades the ratio to a bare GROUP BY."""
    books = int(sys.argv[1]) if len(sys.argv) > 1 else 604_800
    trades = int(sys.argv[2]) if len(sys.argv) > 2 else 10_000_000
    market.print_machine()
    with tempfile.TemporaryDirectory() as folder:
        working = Path(folder)
        market.write_klines(working / "tapehouse.duckdb", bars=7 * 1440)
        levels = {
            "bids": ", ".join(f"best - {level / 10}" for level in range(1, 21)),
            "asks": ", ".join(f"best + {level / 10}" for level in range(1, 21)),
            "quantities": ", ".join(["round(random() * 10, 3) + 0.001"] * 20),
        }
        with duckdb.connect(working / "tapehouse.duckdb") as connection:
            connection.execute(BOOKS.format(books=books, **levels))
            connection.execute(TRADES.format(trades=trades))
            started = perf_counter()
            connection.execute(BARE)
            bare = perf_counter() - started
        market.dbt_run(working, "+int_bars")
        for rows, name, models in [
            (
                books,
                "feat_orderflow",
                ["int_book_snapshots", "int_book_minutes", "int_book_bars", "feat_orderflow"],
            ),
            (
                trades,
                "feat_microstructure",
                ["int_trade_sizes", "int_trade_minutes", "int_trade_bars"],
            ),
        ]:
            run = market.dbt_run(working, f"+{name}", exclude="+int_bars")
            print(f"{name} {run}")
            for model, seconds in run.models.items():
                print(f"    {model:<28} {seconds:6.2f} s")
            seconds = sum(run.models[model] for model in models)
            print(f"{' + '.join(models)}: {rows:,} rows, {rows / seconds:,.0f} rows/s")
    print(f"bare GROUP BY of trades {bare:.2f} s, ratio {seconds / bare:.1f}")


if __name__ == "__main__":
    main()
