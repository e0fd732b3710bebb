"""Calendar, cross-asset, trade-flow and derivatives features by dbt on DuckDB, beside polars.

`python benchmarks/bench_families.py [days]`: one-minute bars of 5 symbols, 730 days by default,
mark prices every minute and open interest every five. No trades land, so the klines' taker volumes
make the flows. Dbt writes its tables to disk, from `int_bars` on; polars (lazy, all cores) keeps
its columns in memory. Values are compared.
"""

import sys
import tempfile
from functools import partial
from pathlib import Path
from time import perf_counter

import duckdb
import market
import polars as pl
from bench_features import compare, frame

SYMBOL = "symbol"
C = pl.col


def calendar(bars: pl.LazyFrame) -> pl.LazyFrame:
    """Return the columns of `feat_calendar`."""
    hour, weekday = C("opened_at").dt.hour(), C("opened_at").dt.weekday() - 1
    day = 2 * 3.141592653589793
    hours = (
        bars.group_by(SYMBOL, hour_at=C("opened_at").dt.truncate("1h"))
        .agg(volume=C("volume").sum(), bars=pl.len())
        .sort("hour_at")
        .with_columns(
            **{
                name: C(name).shift(1).rolling_sum(28).over(SYMBOL, C("hour_at").dt.hour())
                for name in ("volume", "bars")
            }
        )
        .select(SYMBOL, "hour_at", typical=C("volume") / C("bars"))
    )
    return bars.join(
        hours,
        left_on=[SYMBOL, C("opened_at").dt.truncate("1h")],
        right_on=[SYMBOL, "hour_at"],
        how="left",
        maintain_order="left",
    ).select(
        SYMBOL,
        hour=hour,
        day_of_week=weekday,
        is_weekend=weekday >= 5,
        month=C("opened_at").dt.month(),
        is_end_of_month=C("opened_at").dt.day() >= 28,
        is_asia_session=hour < 8,
        is_europe_session=(hour >= 8) & (hour < 16),
        is_us_session=hour >= 16,
        hour_sin=(hour * day / 24).sin(),
        hour_cos=(hour * day / 24).cos(),
        day_of_week_sin=(weekday * day / 7).sin(),
        day_of_week_cos=(weekday * day / 7).cos(),
        minutes_to_funding=480 - C("closed_at").dt.epoch("s") // 60 % 480,
        volume_vs_typical=C("volume") / C("typical"),
    )


def cross_asset(bars: pl.LazyFrame) -> pl.LazyFrame:
    """Return the columns of `feat_cross_asset` that no index or commodity is needed for."""
    returns = bars.select(
        SYMBOL,
        "opened_at",
        "close_price",
        own=C("close_price").pct_change().over(SYMBOL),
        five=C("close_price").pct_change(5).over(SYMBOL),
    )
    reference = returns.filter(C(SYMBOL) == market.SYMBOLS[0]).select(
        "opened_at",
        reference_price="close_price",
        reference_return_1="own",
        reference_return_5="five",
    )
    breadth = (
        returns.drop_nulls("own").group_by("opened_at").agg(market_breadth=(C("own") > 0).mean())
    )
    joined = returns.join(reference, on="opened_at", how="left", maintain_order="left").join(
        breadth, on="opened_at", how="left", maintain_order="left"
    )
    ratio, other = C("close_price") / C("reference_price"), C("reference_return_1")
    return joined.select(
        SYMBOL,
        "reference_return_1",
        "reference_return_5",
        "market_breadth",
        ratio_to_reference=ratio,
        ratio_to_reference_change=ratio.diff().over(SYMBOL),
        ratio_to_reference_change_rel=ratio.pct_change().over(SYMBOL),
        **{
            f"beta_{bars}": (
                pl.rolling_cov(C("own"), other, window_size=bars) / other.rolling_var(bars)
            ).over(SYMBOL)
            for bars in (60, 288)
        },
        **{
            f"correlation_{bars}": pl.rolling_corr(C("own"), other, window_size=bars).over(SYMBOL)
            for bars in (60, 288)
        },
    )


def microstructure(bars: pl.LazyFrame) -> pl.LazyFrame:
    """Return the columns of `feat_microstructure` that no single trades are needed for."""
    flows = bars.select(
        SYMBOL,
        "quote_volume",
        "close_price",
        "volume",
        day=C("opened_at").dt.truncate("1d"),
        buy_volume=C("taker_buy_volume"),
        sell_volume=C("volume") - C("taker_buy_volume"),
        net_volume=2 * C("taker_buy_volume") - C("volume"),
        trade_imbalance=(2 * C("taker_buy_volume") - C("volume")) / C("volume"),
        change=C("close_price").diff().over(SYMBOL),
        illiquidity=C("close_price").pct_change().over(SYMBOL).abs() / C("quote_volume"),
    )
    net, change, imbalance = C("net_volume"), C("change"), C("trade_imbalance")
    mean_volume = C("volume").rolling_mean(60)
    kyle = pl.rolling_cov(change, net, window_size=60) / net.rolling_var(60)
    amihud = {f"amihud_{bars}": C("illiquidity").rolling_mean(bars) for bars in (20, 60)}
    amihud |= {
        f"{name}_rel": mean * C("quote_volume").rolling_mean(int(name[-2:]))
        for name, mean in amihud.items()
    }
    return flows.select(
        SYMBOL,
        "buy_volume",
        "sell_volume",
        "net_volume",
        "trade_imbalance",
        buy_sell_ratio=C("buy_volume") / C("sell_volume"),
        taker_buy_ratio=C("buy_volume") / C("volume"),
        trade_imbalance_autocorrelation_1=pl.rolling_corr(
            imbalance, imbalance.shift(1), window_size=60
        ).over(SYMBOL),
        kyle_lambda=kyle.over(SYMBOL),
        kyle_lambda_rel=(kyle * mean_volume).over(SYMBOL) / C("close_price"),
        cumulative_delta_day=net.cum_sum().over(SYMBOL, "day"),
        cumulative_delta_day_rel=net.cum_sum().over(SYMBOL, "day")
        / C("volume").cum_sum().over(SYMBOL, "day"),
        cumulative_delta_288=net.rolling_sum(288).over(SYMBOL),
        cumulative_delta_288_rel=(net.rolling_sum(288) / C("volume").rolling_sum(288)).over(SYMBOL),
        **{name: value.over(SYMBOL) for name, value in amihud.items()},
    )


def derivatives(bars: pl.LazyFrame, series: dict[str, pl.LazyFrame]) -> pl.LazyFrame:
    """Return the columns of `feat_derivatives`."""
    below = C("funding_rate").rolling_rank(90, method="min") - 1
    not_above = C("funding_rate").rolling_rank(90, method="max")
    funding = series["funding"].with_columns(
        funding_rate_change=C("funding_rate").diff().over(SYMBOL),
        funding_rate_ma_24h=C("funding_rate").rolling_mean(3).over(SYMBOL),
        funding_regime=(
            pl.when(below >= 81).then(1).when(not_above < 9).then(-1).when(below >= 0).then(0)
        ).over(SYMBOL),
    )
    liquidations = (
        series["liquidations"]
        .group_by(SYMBOL, opened_at=C("event_at").dt.truncate("1m"))
        .agg(
            **{
                f"liquidations_{name}": C("notional").filter(C("side") == side).sum()
                for name, side in {"long": "SELL", "short": "BUY"}.items()
            }
        )
    )
    known = bars.select(SYMBOL, "opened_at", "closed_at").sort("closed_at")
    for slower, limit in (
        (funding, "540m"),
        (series["open_interest"], "20m"),
        (series["mark_prices"], "5m"),
    ):
        known = known.join_asof(
            slower,
            left_on="closed_at",
            right_on="event_at",
            by=SYMBOL,
            tolerance=limit,
            check_sortedness=False,
        ).drop("event_at", strict=False)
    known = known.join_asof(
        series["liquidations"].select("event_at", is_heard=pl.lit(True)),
        left_on="closed_at",
        right_on="event_at",
        tolerance="1440m",
    ).join(liquidations, on=[SYMBOL, "opened_at"], how="left", maintain_order="left")
    long, short = (
        pl.when("is_heard").then(C(f"liquidations_{name}").fill_null(0))
        for name in ("long", "short")
    )
    change = C("open_interest").diff().over(SYMBOL)
    return known.select(
        SYMBOL,
        "funding_rate",
        "funding_rate_change",
        "funding_rate_ma_24h",
        "funding_regime",
        "open_interest",
        oi_change=change,
        oi_change_pct=change / (C("open_interest") - change) * 100,
        liquidations_long=long,
        liquidations_short=short,
        liquidation_ratio=pl.when(long + short > 0).then(long / (long + short)),
        basis=C("mark_price") / C("index_price") - 1,
    )


SERIES = {
    "funding": "funded_at as event_at, funding_rate",
    "open_interest": "measured_at as event_at, open_interest",
    "mark_prices": "marked_at as event_at, mark_price, index_price",
    "liquidations": (
        "liquidated_at as event_at, side, average_price * filled_accumulated_quantity as notional"
    ),
}
FAMILIES = {
    "feat_calendar": calendar,
    "feat_cross_asset": cross_asset,
    "feat_microstructure": microstructure,
}


def main() -> None:
    """Print the time of each and polars' as a share of dbt's."""
    days = int(sys.argv[1]) if len(sys.argv) > 1 else 730
    market.print_machine("polars")
    with tempfile.TemporaryDirectory() as folder:
        working = Path(folder)
        market.write_klines(working / "tapehouse.duckdb", bars=days * 1440)
        market.write_derivatives(working / "tapehouse.duckdb", bars=days * 1440)
        market.dbt_run(working, "+int_bars")
        sql = market.dbt_run(
            working,
            " ".join(f"+{name}" for name in (*FAMILIES, "feat_derivatives")),
            exclude="+int_bars",
        )
        print(f"dbt on DuckDB    {sql}", flush=True)
        with duckdb.connect(working / "tapehouse.duckdb", read_only=True) as connection:
            bars = frame(
                connection,
                "from int_bars where interval_minutes = 1 order by symbol, opened_at",
            ).lazy()
            series = {
                name: frame(
                    connection, f"select symbol, {columns} from stg_{name} order by event_at"
                ).lazy()
                for name, columns in SERIES.items()
            }
            families = FAMILIES | {"feat_derivatives": partial(derivatives, series=series)}
            for name, family in families.items():
                started = perf_counter()
                columns = family(bars).collect()
                seconds = perf_counter() - started
                print(f"{name:<20} dbt {sql.models[name]:6.1f} s  polars {seconds:6.1f} s")
                compare(
                    connection, name, columns.filter(C(SYMBOL) == market.SYMBOLS[0]).drop(SYMBOL)
                )


if __name__ == "__main__":
    main()
