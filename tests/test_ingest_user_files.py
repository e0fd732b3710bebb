"""What users bring beside market data: headlines, scores, macro bars, mark prices, GARCH fits."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner, Result

from ingest import warehouse
from ingest.settings import Settings
from orchestration.cli import app

NEWS = (
    "provider,id,published_at,title,url\n"
    'CoinDesk,1,2024-01-01T02:00:00+02:00,"Bitcoin, again, ""soars""",https://example.org/1\n'
    'CoinDesk,2,"Mon, 01 Jan 2024 00:01:00 GMT",Ether falls,\n'
)
MACRO = """datetime,open,high,low,close
2024-01-01 00:00:00+00:00,10,12,9,11
2024-01-01T01:00:00-01:00,11,11,11,11
"""


def ingest(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["ingest", *(str(argument) for argument in arguments)])


def query(sql: str) -> list[tuple[Any, ...]]:
    with warehouse.reading(Settings().database) as connection:
        return connection.execute(sql).fetchall()


def minute(number: int) -> datetime:
    return datetime(2024, 1, 1, tzinfo=UTC) + timedelta(minutes=number)


def test_every_recorded_headline_lands_only_once(shared_data: Path) -> None:
    path = shared_data / "news_headlines.parquet"
    for rows in (7465, 0):
        result = ingest("news", path, "--known-after", 720)
        assert result.exit_code == 0, result.output
        assert f"several news {rows:,}" in " ".join(result.output.split())
    assert query(
        """
        select
            count(*), count(distinct (provider, news_id)), min(published_time), max(published_time),
            count_if(arrival_time = published_time + interval 12 hours), count(distinct provider),
            any_value(source)
        from raw.news
        """
    ) == [
        (
            7465,
            7465,
            datetime(2021, 10, 12, 20, tzinfo=UTC),
            datetime(2022, 7, 5, 4, 24, tzinfo=UTC),
            7465,
            3,
            "file:news_headlines.parquet (known after 720 min)",
        )
    ]
    assert query("select count(*) from raw.raw_rejects") == [(0,)]


def test_headlines_of_a_csv_land_with_the_time_zones_and_quotes_that_it_writes(
    tmp_path: Path,
) -> None:
    path = tmp_path / "news.csv"
    path.write_text(NEWS)
    assert ingest("news", path).exit_code == 0
    assert query(
        "select provider, news_id, published_time, arrival_time, headline, url from raw.news "
        "order by news_id"
    ) == [
        ("CoinDesk", "1", minute(0), None, 'Bitcoin, again, "soars"', "https://example.org/1"),
        ("CoinDesk", "2", minute(1), None, "Ether falls", None),
    ]


def test_a_headline_without_an_id_is_told_by_its_address_or_else_its_text(tmp_path: Path) -> None:
    path = tmp_path / "news.csv"
    path.write_text(
        "published,title,link\n2024-01-01,A,https://example.org/1\n2024-01-01,B,\n2024-01-01,C,\n"
    )
    result = ingest("news", path)
    assert result.exit_code == 1
    assert "name it with one --provider" in result.output
    assert ingest("news", path, "--provider", "CoinDesk").exit_code == 0
    assert query("select count(distinct news_id), count(news_id) from raw.news") == [(3, 3)]
    assert query("select news_id from raw.news where headline = 'A'") == [
        ("https://example.org/1",)
    ]


def test_a_stated_delay_lands_what_counted_as_known_from_its_landing_once_more(
    tmp_path: Path,
) -> None:
    path = tmp_path / "news.csv"
    path.write_text(NEWS)
    for statement, rows in (((), 2), (("--known-after", 5), 4), (("--known-after", 5), 4), ((), 4)):
        assert ingest("news", path, *statement).exit_code == 0
        assert query("select count(*) from raw.news") == [(rows,)]
    assert query("select count_if(arrival_time is null), max(arrival_time) from raw.news") == [
        (2, minute(6))
    ]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("CoinDesk,3,2024-01-01,,", "headline is missing"),
        ("CoinDesk,3,yesterday,Up,", "published_time cannot be read: "),
        ("CoinDesk,3,2999-01-01,Up,", "published_time lies in the future: "),
        (",3,2024-01-01,Up,", "provider is missing"),
        ('CoinDesk,3,2024-01-01,"Up, and away,', "the line has other columns"),
        ("CoinDesk,3,2024-01-01,Up,,,", "the line has other columns"),
    ],
)
def test_a_bad_headline_is_rejected_and_those_around_it_land(
    tmp_path: Path, line: str, reason: str
) -> None:
    path = tmp_path / "news.csv"
    head, first, second = NEWS.splitlines()
    path.write_text("\n".join([head, first, line, second, ""]))
    result = ingest("news", path)
    assert result.exit_code == 0, result.output
    assert query("select news_id from raw.news order by all") == [("1",), ("2",)]
    ((found, kind, payload),) = query("select reason, kind, payload from raw.raw_rejects")
    assert found.startswith(reason)
    assert kind == "news"
    assert "3" in payload


def test_a_quote_left_open_costs_one_line_of_market_data(tmp_path: Path) -> None:
    path = tmp_path / "BTCUSDT-1m-2024-01-01.csv"
    times = [1704067200000 + 60_000 * number for number in range(3)]
    lines = [f'{time},"10","12",9,11,3,{time + 59_999},33,5,1,11,0' for time in times]
    lines[1] = lines[1].replace('"10","12"', '"10,12')
    path.write_text("\n".join([*lines, ""]))
    assert ingest("klines", path).exit_code == 0
    assert query("select epoch_ms(open_time), open, high from raw.klines order by all") == [
        (times[0], 10.0, 12.0),
        (times[2], 10.0, 12.0),
    ]
    assert query("select reason, payload from raw.raw_rejects") == [
        ("the line has other columns", lines[1])
    ]


def test_scores_of_ones_own_land_and_those_out_of_range_do_not(tmp_path: Path) -> None:
    path = tmp_path / "scores.csv"
    path.write_text(
        "provider,news_id,published_time,arrival_time,scorer,score\n"
        "CoinDesk,1,2024-01-01,2024-01-01 00:03,mine,-1\n"
        "CoinDesk,2,2024-01-01,,mine,1.5\n"
    )
    assert ingest("news-scores", path).exit_code == 0
    assert query("select news_id, arrival_time, scorer, score from raw.news_scores") == [
        ("1", minute(3), "mine", -1.0)
    ]
    assert query("select reason, symbol from raw.raw_rejects") == [
        ("score is not between -1 and 1", "CoinDesk")
    ]


def test_macro_bars_take_series_and_interval_from_the_name_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "SPX_1h.csv"
    path.write_text(MACRO)
    (tmp_path / "BTCUSDT_1m.csv").write_text("open_time,close\n")
    for _ in range(2):
        assert ingest("macro-bars", tmp_path).exit_code == 0
    assert query("select series, open_time, close_time, close from raw.macro_bars order by 2") == [
        ("spx", minute(0), minute(60), 11.0),
        ("spx", minute(120), minute(180), 11.0),
    ]
    assert query('select market, symbol, "interval", row_count from raw.landings') == [
        (None, "spx", "1h", 2)
    ]


def test_macro_bars_need_a_series_and_the_time_of_their_close(tmp_path: Path) -> None:
    path = tmp_path / "index.csv"
    path.write_text(MACRO)
    assert "name it with one --interval" in ingest("macro-bars", path, "--series", "vix").output
    assert "name it with one --series" in ingest("macro-bars", path, "--interval", "1h").output
    assert ingest("macro-bars", path, "--series", "vix", "--interval", "1y").exit_code == 2
    assert ingest("macro-bars", path, "--series", "vix", "--interval", "1h").exit_code == 0
    assert query("select distinct series from raw.macro_bars") == [("vix",)]


def test_bad_macro_bars_are_rejected(tmp_path: Path) -> None:
    now = datetime.now(UTC).replace(microsecond=0)
    good: dict[str, Any] = {
        "series": "gold", "open_time": now - timedelta(hours=2),
        "close_time": now - timedelta(hours=1), "open": 2.0, "high": 3.0, "low": 1.0, "close": 2.0,
    }  # fmt: skip
    bad = {
        "the bar had not closed when it was read": {"close_time": now + timedelta(hours=1)},
        "close_time is not after open_time": {"close_time": good["open_time"]},
        "high is below low": {"high": 0.5},
        "a value is zero or negative": {"low": 0.0},
        "close is outside low and high": {"close": 4.0},
        "series is not in lower case": {"series": "GOLD"},
        "close is missing": {"close": None},
    }
    path = tmp_path / "macro.parquet"
    pq.write_table(pa.Table.from_pylist([good, *(good | change for change in bad.values())]), path)
    assert ingest("macro-bars", path).exit_code == 0
    assert query("select series, close_time, low from raw.macro_bars") == [
        ("gold", good["close_time"], 1.0)
    ]
    assert query("select reason, symbol from raw.raw_rejects") == [
        (reason, str(change.get("series", "gold"))) for reason, change in bad.items()
    ]


def test_mark_prices_land_by_the_names_of_the_exchange(tmp_path: Path) -> None:
    (tmp_path / "um").mkdir()
    path = tmp_path / "um" / "premium.csv"
    path.write_text(
        "symbol,markPrice,indexPrice,lastFundingRate,nextFundingTime,time\n"
        "BTCUSDT,100,99,0.0001,1704096000000,1704067200000\n"
        "ETHUSDT,0,99,0.0001,1704096000000,1704067200000\n"
    )
    assert ingest("mark-prices", path).exit_code == 0
    assert query(
        "select market, symbol, event_time, mark_price, index_price, estimated_settle_price, "
        "funding_rate, next_funding_time from raw.mark_prices"
    ) == [("um", "BTCUSDT", minute(0), 100.0, 99.0, None, 0.0001, minute(480))]
    assert query("select reason, symbol from raw.raw_rejects") == [
        ("a price is zero or negative", "ETHUSDT")
    ]


def test_fits_of_ones_own_land_and_those_without_a_long_run_variance_do_not(
    tmp_path: Path,
) -> None:
    path = tmp_path / "fits.csv"
    good = "5,1e-8,0.1,0.8,2024-01-01,2024-01-01T00:10"
    bad = {
        "alpha and beta sum up to 1 or more: no long-run variance": good.replace("0.8", "0.9"),
        "omega is zero or negative": good.replace("1e-8", "0"),
        "known_at is before fitted_until": good.replace("01T00:10", "01T00:00-01:00").replace(
            "2024-01-01,", "2024-01-02,"
        ),
        "interval_minutes is that of no interval": f"7{good[1:]}",
        "alpha or beta is negative": good.replace("0.1", "-0.1"),
    }
    header = "symbol,interval_minutes,omega,alpha,beta,fitted_until,known_at"
    lines = [header, *(f"BTCUSDT,{line}" for line in (good, *bad.values()))]
    path.write_text("\n".join(lines))
    assert ingest("garch-parameters", path, "--market", "um").exit_code == 0
    assert query("select * exclude (source, received_at) from raw.garch_parameters") == [
        ("binance", "um", "BTCUSDT", 5, 1e-8, 0.1, 0.8, minute(0), minute(10))
    ]
    assert query("select reason from raw.raw_rejects") == [(reason,) for reason in bad]
