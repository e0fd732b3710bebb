"""A market of every raw table, recorded files beside it, and the parts in which they land."""

import re
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
from features_fixtures import write_raw

from ingest.files import ingest_files
from ingest.settings import Settings

END = pd.Timestamp("2025-06-10 12:00", tz="UTC")
LIVE = pd.Timestamp("2025-06-08 12:00", tz="UTC")
SYMBOLS = ["BTCUSDT", "ETHUSDT"]
# Minutes, and how many days before the end they begin and end: the regime of volatility is known
# after 2,528 bars.
KLINES = {"1m": (1, 6, 0), "5m": (5, 14, 6), "15m": (15, 32, 14), "1h": (60, 113, 32)}
# The first hole begins the day before the second landing, the series goes on in that landing.
HOLES = {
    "BTCUSDT": ("2025-06-06 20:00", "2025-06-07 18:00"),
    "ETHUSDT": ("2025-06-08 10:00", "2025-06-08 10:07"),
}
RECORDED = {
    "um/klines_BTCUSDT_1m": "open_time >= 1750377600000",
    "um/klines_XRPUSDT_1m": "open_time >= 1750377600000",
    "um/klines_BTCUSDT_5m": "open_time >= 1766188800000",
    "spot/klines_BTCUSDT_15m": "open_time >= 1774915200000",
    "spot/klines_BTCUSDT_1h": "open_time >= 1767225600000",
    "um/trades_BTCUSDT": "true",
    "um/funding_BTCUSDT": "true",
    "um/open_interest_BTCUSDT_5m": "true",
    "um/depth_book1000_BTCUSDT": "true",
    "um/liquidations": "true",
}


def arrived(rows: pd.DataFrame, event: str, seed: int) -> pd.DataFrame:
    """Say how rows came: the last two days live, some of them late, the others from archives."""
    generator = np.random.default_rng(seed)
    delay_s = generator.exponential(2, len(rows)) * generator.choice(
        [1, 600], len(rows), p=[0.97, 0.03]
    )
    is_live = rows[event] >= LIVE
    received = rows[event] + pd.to_timedelta(delay_s.round(3), unit="s")
    return rows.assign(
        source=np.where(is_live, "websocket", "archive"),
        received_at=received.where(is_live, END + pd.Timedelta(days=1)),
    )


def moments(days: int, every: str, *, until: pd.Timestamp = END) -> pd.DatetimeIndex:
    start = (END - pd.Timedelta(days=days)).floor("D")
    return pd.date_range(start, until, freq=every, inclusive="left")


def klines(symbol: str, seed: int) -> pd.DataFrame:
    """A random walk with holes, one of them from an evening to the next morning."""
    generator = np.random.default_rng(seed)
    frames = []
    for interval, (minutes, days, later) in KLINES.items():
        until = END - pd.Timedelta(days=later)
        opened = moments(days, f"{minutes}min", until=until.floor("D") if later else END)
        count = len(opened)
        close = np.round(1000 + generator.normal(0, np.sqrt(minutes), count).cumsum() / 4, 1)
        first = np.concatenate([[1000.0], close[:-1]])
        spread = np.round(generator.exponential(1.0, (2, count)), 1)
        volume = np.round(generator.exponential(10.0, count), 3) + 0.001
        frames.append(
            pd.DataFrame(
                {
                    "interval": interval,
                    "open_time": opened,
                    "open": first,
                    "high": np.maximum(first, close) + spread[0],
                    "low": np.minimum(first, close) - spread[1],
                    "close": close,
                    "volume": volume,
                    "quote_volume": np.round(volume * close, 4),
                    "count": generator.integers(1, 100, count),
                    "taker_buy_volume": np.round(volume * generator.uniform(0, 1, count), 3),
                }
            )
        )
    rows = pd.concat(frames, ignore_index=True).assign(
        symbol=symbol,
        is_closed=True,
        taker_buy_quote_volume=lambda rows: np.round(rows.taker_buy_volume * rows.close, 4),
    )
    start, end = (pd.Timestamp(moment, tz="UTC") for moment in HOLES[symbol])
    is_missing = (rows.open_time >= start) & (rows.open_time < end) & (rows.interval == "1m")
    return arrived(rows[~is_missing], "open_time", seed)


def trades(symbol: str, seed: int) -> pd.DataFrame:
    generator = np.random.default_rng(seed)
    at = moments(4, "15s")
    at = at + pd.to_timedelta(generator.integers(0, 14_000, len(at)), unit="ms")
    price = np.round(1000 + generator.normal(0, 0.5, len(at)).cumsum(), 1)
    quantity = np.round(generator.exponential(1.0, len(at)), 3) + 0.001
    rows = pd.DataFrame(
        {
            "symbol": symbol,
            "is_aggregate": at.hour % 7 == 3,
            "trade_id": np.arange(len(at)) + 1,
            "price": price,
            "quantity": quantity,
            "transact_time": at,
            "is_buyer_maker": generator.uniform(size=len(at)) < 0.5,
        }
    )
    return arrived(rows[at.minute % 10 != 9], "transact_time", seed)


def books(symbol: str, seed: int) -> pd.DataFrame:
    generator = np.random.default_rng(seed)
    at = moments(4, "50s")
    best_bid = np.round(1000 + generator.choice([-0.1, 0.0, 0.1], len(at)).cumsum(), 1)
    steps = np.round(generator.integers(1, 4, (2, len(at), 20)).cumsum(axis=2) * 0.1, 1)
    quantities = np.round(generator.exponential(5.0, (2, len(at), 20)), 3) + 0.001
    rows = pd.DataFrame(
        {
            "symbol": symbol,
            "last_update_id": np.arange(len(at)) + 1,
            "transact_time": at,
            "bid_prices": list(np.round(best_bid[:, None] + 0.1 - steps[0], 1)),
            "bid_quantities": list(quantities[0]),
            "ask_prices": list(np.round(best_bid[:, None] + steps[1], 1)),
            "ask_quantities": list(quantities[1]),
        }
    )
    return arrived(rows[at.minute % 20 > 3], "transact_time", seed)


def derivatives(symbol: str, seed: int) -> dict[str, pd.DataFrame]:
    generator = np.random.default_rng(seed)
    funded, measured, healed = moments(60, "8h"), moments(4, "5min"), moments(4, "97min")
    marked, liquidated = moments(4, "1min"), moments(4, "7min")
    mark = 1000 + generator.normal(0, 1, len(marked)).cumsum()
    tables = {
        "book_gaps": {
            "gap_until": healed,
            "gap_from": healed
            - pd.to_timedelta(generator.uniform(1, 200, len(healed)).round(), "s"),
            "cause": "sequence",
        },
        "funding": {
            "funding_time": funded,
            "funding_rate": np.round(generator.normal(1e-4, 1e-4, len(funded)), 8),
            "mark_price": 1000.5,
        },
        "open_interest": {
            "create_time": measured,
            "sum_open_interest": np.round(generator.uniform(900, 1100, len(measured)), 3),
        },
        "mark_prices": {
            "event_time": marked,
            "mark_price": mark.round(2),
            "index_price": (mark * generator.normal(1, 1e-4, len(marked))).round(2),
            "estimated_settle_price": (mark + 0.5).round(2),
            "funding_rate": 1e-4,
            "next_funding_time": marked.ceil("8h"),
        },
        "liquidations": {
            "trade_time": liquidated + pd.to_timedelta(seed, unit="s"),
            "side": generator.choice(["BUY", "SELL"], len(liquidated)),
            "price": generator.uniform(990, 1010, len(liquidated)).round(1),
            "original_quantity": generator.exponential(1, len(liquidated)).round(3),
        },
    }
    return {
        table: arrived(pd.DataFrame({"symbol": symbol, **columns}), next(iter(columns)), seed)
        for table, columns in tables.items()
    }


def garch_parameters(symbol: str, seed: int) -> pd.DataFrame:
    generator = np.random.default_rng(seed)
    fitted = moments(110, "6h")
    frames = [
        pd.DataFrame(
            {
                "symbol": symbol,
                "interval_minutes": minutes,
                "fitted_until": fitted,
                "known_at": fitted + pd.Timedelta(minutes=int(generator.integers(1, 90))),
                "omega": 1e-7,
                "alpha": generator.uniform(0.05, 0.1, len(fitted)),
                "beta": generator.uniform(0.8, 0.85, len(fitted)),
            }
        )
        for minutes in (1, 5, 15, 60)
    ]
    return arrived(pd.concat(frames), "fitted_until", seed)


def world() -> dict[str, pd.DataFrame]:
    """Headlines, some of which arrive days later, their scores, and bars of four indices."""
    generator = np.random.default_rng(9)
    published, closed = moments(6, "17min"), moments(6, "30min")
    delay_min = generator.exponential(5, len(published)) * generator.choice(
        [1, 500], len(published), p=[0.95, 0.05]
    )
    news = pd.DataFrame(
        {
            "provider": "wire",
            "news_id": [str(number) for number in range(len(published))],
            "published_time": published,
            "arrival_time": published + pd.to_timedelta(delay_min.round(2), unit="min"),
            "headline": "Something happened",
            "url": "https://wire.example/something",
        }
    )
    scores = news[["provider", "news_id", "published_time"]].assign(
        scorer="vader",
        score=generator.uniform(-1, 1, len(news)).round(4),
        arrival_time=news.arrival_time + pd.Timedelta(minutes=2),
    )
    series = [
        pd.DataFrame({"series": name, "close_time": closed}).assign(
            open_time=closed - pd.Timedelta(minutes=30),
            open=100.0,
            high=110.0,
            low=90.0,
            close=lambda rows: generator.normal(100, 1, len(rows)).round(2),
        )
        for name in ("spx", "dxy", "gold", "vix")
    ]
    return {
        "news": arrived(news, "published_time", 1),
        "news_scores": arrived(scores, "published_time", 2),
        "macro_bars": arrived(pd.concat(series), "close_time", 3),
    }


def market() -> dict[str, pd.DataFrame]:
    """Rows of every raw table, for two symbols."""
    makers = {
        "klines": klines,
        "trades": trades,
        "books": books,
        "garch_parameters": garch_parameters,
    }
    parts = [
        {name: make(symbol, seed) for name, make in makers.items()} | derivatives(symbol, seed)
        for seed, symbol in enumerate(SYMBOLS)
    ]
    own = {name: pd.concat([part[name] for part in parts]) for name in parts[0]}
    return {
        name: rows.assign(exchange="binance", market="um") for name, rows in own.items()
    } | world()


def write_whole(database: Path, shared_data: Path | None, event_times: dict[str, str]) -> None:
    """Fill a new warehouse with the market and, as exchange `recorded`, with recorded files.

    Recorded rows keep their times of day; by whole days they are moved to end with the market.
    """
    write_raw(database, market())
    if shared_data is None:
        return
    recorded = database.parent / "recorded"
    for name, condition in RECORDED.items():
        file = recorded / f"{name}.parquet"
        file.parent.mkdir(parents=True, exist_ok=True)
        source = shared_data / f"{name}.parquet"
        duckdb.sql(f"copy (from '{source}' where {condition}) to '{file}'")
    with duckdb.connect(database) as connection:
        connection.execute("set timezone = 'UTC'")
        settings = Settings(database=recorded / "recorded.duckdb")
        for kind in ("klines", "trades", "books", "funding", "open_interest", "liquidations"):
            assert ingest_files(settings, kind, [recorded]).failures == ()
            time = re.findall(r"\w+_time", event_times[kind])[0]
            interval = ', "interval"' if kind == "klines" else ""
            connection.execute(f"attach '{settings.database}' as recorded (read_only)")
            connection.execute(
                f"""
                insert into raw.{kind} by name
                select * replace (
                    'recorded' as exchange,
                    {time} + to_days(cast(date_diff(
                        'day',
                        max({time}) over (partition by market{interval}),
                        timestamptz '{END}'
                    ) as integer)) as {time}
                )
                from recorded.raw.{kind}
                """
            )
            connection.execute("detach recorded")


def landings(database: Path, event_times: dict[str, str]) -> list[dict[str, pa.Table]]:
    """Part the raw rows of a warehouse by time.

    The first landing ends in the middle of a day; the second brings the two days after it, late
    rows of that day, some rows again and some corrected; the third brings what came after.
    """
    parts: list[dict[str, pa.Table]] = [{}, {}, {}]
    corrected = {"klines": "high as close, ", "trades": "2 * quantity as quantity, "}
    with duckdb.connect(database, read_only=True) as connection:
        connection.execute("set timezone = 'UTC'")
        for table, event_time in event_times.items():
            is_late = "n % 29 = 0 and happened_at >= timestamptz '2025-06-07'"
            conditions = [
                f"happened_at < timestamptz '2025-06-07 15:00' and not ({is_late})",
                "happened_at < timestamptz '2025-06-09' "
                f"and (happened_at >= timestamptz '2025-06-07 15:00' or {is_late})",
                "happened_at >= timestamptz '2025-06-09'",
            ]
            for part, condition in zip(parts, conditions, strict=True):
                part[table] = connection.sql(
                    f"""
                    with raw_rows as (
                        select *, {event_time} as happened_at, row_number() over () as n
                        from raw.{table}
                    ),
                    landed as (from raw_rows where {condition})
                    select * exclude (happened_at, n) from landed
                    union all
                    select * exclude (happened_at, n) replace (
                        {corrected.get(table, "")}
                        'archive' as source, timestamptz '{END}' + interval 2 day as received_at
                    )
                    from landed
                    where n % 31 = 0 and happened_at >= timestamptz '2025-06-07'
                    """
                ).to_arrow_table()
    return parts
