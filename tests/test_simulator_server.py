"""The exchange over real sockets, read by unmodified ccxt and by plain HTTP."""

import asyncio
import csv
import gzip
import hashlib
import io
import json
import math
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
import zipfile
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import ccxt
import ccxt.pro
import pytest

from ingest.simulator import Market, Simulator, serving, simulator

START = datetime(2024, 12, 30, tzinfo=UTC)
MARKET = Market(7, ["BTCUSDT", "XRPUSDT"], start=START, days=3, edge=1.0)
TYPES = {"spot": ("spot", "BTC/USDT"), "um": ("swap", "BTC/USDT:USDT")}


@pytest.fixture
def exchange() -> Iterator[Simulator]:
    """The simulator, frozen in the middle of a minute, past the history of three days."""
    with simulator(MARKET, now=MARKET.end + timedelta(seconds=90)) as running:
        yield running


@pytest.fixture
def quick() -> Iterator[Simulator]:
    """The simulator at a hundred times real time: 200 books a second."""
    with simulator(MARKET, speed=100.0) as running:
        yield running


def addresses(url: str) -> dict[str, Any]:
    sockets = url.replace("http", "ws")
    return {
        "public": f"{url}/api/v3",
        "fapiPublic": f"{url}/fapi/v1",
        "fapiPublicV2": f"{url}/fapi/v2",
        "fapiPublicV3": f"{url}/fapi/v3",
        "fapiData": f"{url}/futures/data",
        "dapiPublic": f"{url}/dapi/v1",
        "ws": {"spot": f"{sockets}/stream/spot/ws", "future": f"{sockets}/um/ws"},
    }


def client(url: str, kind: str) -> Any:
    made = ccxt.binance({"options": {"defaultType": TYPES[kind][0]}, "enableRateLimit": False})
    made.urls["api"] |= addresses(url)
    return made


@pytest.fixture
async def reader(quick: Simulator) -> AsyncIterator[Any]:
    """A ccxt.pro client of either market; its socket is closed at the end."""
    made = ccxt.pro.binance({"enableRateLimit": False})
    made.urls["api"] |= addresses(quick.url)
    yield made
    await made.close()


def get(url: str) -> bytes:
    with urllib.request.urlopen(url) as response:
        return response.read()


def answer(url: str) -> Any:
    return json.loads(get(url))


def refusal(url: str) -> tuple[int, Any]:
    with pytest.raises(urllib.error.HTTPError) as caught:
        get(url)
    with caught.value as error:
        return error.code, error.read().decode()


def post(url: str, content: dict[str, Any]) -> Any:
    request = urllib.request.Request(url, json.dumps(content).encode(), method="POST")
    with urllib.request.urlopen(request) as response:
        return json.loads(response.read())


def archive(url: str, path: str) -> list[list[str]]:
    content = get(f"{url}/data/{path}.zip")
    checksum = get(f"{url}/data/{path}.zip.CHECKSUM").decode()
    name = path.rpartition("/")[2]
    assert checksum == f"{hashlib.sha256(content).hexdigest()}  {name}.zip\n"
    with zipfile.ZipFile(io.BytesIO(content)) as file:
        assert file.namelist() == [f"{name}.csv"]
        return list(csv.reader(io.StringIO(file.read(f"{name}.csv").decode())))


def milliseconds(instant: datetime) -> int:
    return int(instant.timestamp() * 1000)


@pytest.mark.parametrize("kind", ["spot", "um"])
def test_ccxt_reads_everything_it_needs(exchange: Simulator, kind: str) -> None:
    made, symbol = client(exchange.url, kind), TYPES[kind][1]
    markets = made.load_markets()
    candles = made.fetch_ohlcv(symbol, "5m", since=milliseconds(START), limit=3)
    book = made.fetch_order_book(symbol, 20)
    trades = made.fetch_trades(symbol, limit=5)
    assert sorted(markets) == ["BTC/USDT", "BTC/USDT:USDT", "XRP/USDT", "XRP/USDT:USDT"]
    assert made.fetch_time() == milliseconds(MARKET.end) + 90_000
    assert [candle[0] for candle in candles] == [
        milliseconds(START) + minute * 60_000 for minute in (0, 5, 10)
    ]
    assert (len(book["bids"]), len(book["asks"])) == (20, 20)
    assert book["bids"][0][0] < book["asks"][0][0]
    assert [trade["symbol"] for trade in trades] == [symbol] * 5
    made.session.close()


def test_ccxt_reads_derivatives(exchange: Simulator) -> None:
    made, symbol = client(exchange.url, "um"), TYPES["um"][1]
    funding = made.fetch_funding_rate_history(symbol, since=milliseconds(START), limit=100)
    interest = made.fetch_open_interest_history(symbol, "5m", limit=2)
    hourly = made.fetch_open_interest_history(symbol, "1h", limit=2)
    rate, now = made.fetch_funding_rate(symbol), made.fetch_open_interest(symbol)
    # Three days of three, and the one at midnight, 90 s ago.
    assert [row["timestamp"] for row in funding] == [
        milliseconds(START) + 8 * hour * 3_600_000 for hour in range(10)
    ]
    assert rate["fundingRate"] == funding[-1]["fundingRate"]
    assert rate["markPrice"] > 0
    assert now["openInterestAmount"] == interest[-1]["openInterestAmount"]
    assert interest[-1]["timestamp"] - interest[0]["timestamp"] == 300_000
    assert hourly[-1]["timestamp"] - hourly[0]["timestamp"] == 3_600_000
    made.session.close()


@pytest.mark.parametrize(("base", "most"), [("api/v3", 1000), ("fapi/v1", 1500)])
def test_candles_obey_start_end_and_limit(exchange: Simulator, base: str, most: int) -> None:
    url = f"{exchange.url}/{base}/klines?symbol=BTCUSDT&interval=1m"
    first = milliseconds(START)
    from_start = answer(f"{url}&startTime={first}&limit=9999")
    window = answer(f"{url}&startTime={first + 1}&endTime={first + 180_000}")
    until = answer(f"{url}&endTime={first + 600_000}&limit=2")
    newest = answer(url)
    assert [row[0] for row in from_start] == [first + 60_000 * minute for minute in range(most)]
    assert [row[0] for row in window] == [first + 60_000 * minute for minute in (1, 2, 3)]
    assert [row[0] for row in until] == [first + 540_000, first + 600_000]
    assert len(newest) == 500
    # The running candle is the last one, 30 seconds old.
    assert newest[-1][0] == milliseconds(MARKET.end) + 60_000


def test_the_running_candle_grows_until_it_closes(exchange: Simulator) -> None:
    url = f"{exchange.url}/fapi/v1/klines?symbol=BTCUSDT&interval=5m&limit=1"
    (running,) = answer(url)
    exchange.clock.advance(timedelta(seconds=209))
    (later,) = answer(url)
    exchange.clock.advance(timedelta(seconds=2))
    closed, fresh = answer(url.replace("limit=1", "limit=2"))
    assert running[8] < later[8] <= closed[8]
    assert running[:2] == later[:2] == closed[:2]
    assert fresh[0] == closed[0] + 300_000


@pytest.mark.parametrize(("base", "folder"), [("api/v3", "spot"), ("fapi/v1", "futures/um")])
def test_archives_hold_the_same_rows_as_rest(exchange: Simulator, base: str, folder: str) -> None:
    start = milliseconds(START)
    path = f"{folder}/daily/klines/BTCUSDT/1m/BTCUSDT-1m-2024-12-30"
    rows = archive(exchange.url, path)
    if folder != "spot":
        assert ",".join(rows.pop(0)) == (
            "open_time,open,high,low,close,volume,close_time,quote_volume,count,"
            "taker_buy_volume,taker_buy_quote_volume,ignore"
        )
    url = f"{exchange.url}/{base}/klines?symbol=BTCUSDT&interval=1m&limit=1000"
    answered = answer(f"{url}&startTime={start}") + answer(f"{url}&startTime={start + 60_000_000}")
    assert rows == [[str(value) for value in row] for row in answered[:1440]]

    path = f"{folder}/daily/aggTrades/BTCUSDT/BTCUSDT-aggTrades-2024-12-30"
    rows = archive(exchange.url, path)[1 if folder != "spot" else 0 :]
    answered = []
    while not answered or answered[-1]["T"] < start + 86_400_000:
        from_id = answered[-1]["a"] + 1 if answered else int(rows[0][0])
        answered += answer(
            f"{exchange.url}/{base}/aggTrades?symbol=BTCUSDT&fromId={from_id}&limit=1000"
        )
    assert [row[:6] for row in rows] == [
        [str(row[name]) for name in "apqflT"] for row in answered if row["T"] < start + 86_400_000
    ]


def test_trades_are_paged_by_id_and_by_time(exchange: Simulator) -> None:
    url = f"{exchange.url}/api/v3"
    by_id = answer(f"{url}/historicalTrades?symbol=BTCUSDT&fromId=1001&limit=3")
    start = by_id[0]["time"]
    by_time = answer(f"{url}/aggTrades?symbol=BTCUSDT&startTime={start}&endTime={start + 60_000}")
    newest = answer(f"{url}/trades?symbol=BTCUSDT&limit=2")
    assert [row["id"] for row in by_id] == [1001, 1002, 1003]
    assert all(start <= row["T"] <= start + 60_000 for row in by_time)
    assert by_time[0]["f"] <= 1001 <= by_time[0]["l"]
    assert newest[1]["id"] == newest[0]["id"] + 1
    assert answer(f"{url}/historicalTrades?symbol=BTCUSDT&fromId={newest[1]['id'] + 1}") == []


def test_spot_archives_switch_to_microseconds_in_2025(exchange: Simulator) -> None:
    path = "{}/daily/{}/BTCUSDT/{}BTCUSDT-{}-{}"
    digits = {
        (folder, table, day): len(
            archive(exchange.url, path.format(folder, table, part, part.strip("/") or table, day))[
                1
            ][column]
        )
        for folder in ("spot", "futures/um")
        for table, part, column in (("klines", "1m/", 0), ("trades", "", 4))
        for day in ("2024-12-31", "2025-01-01")
    }
    assert digits == {
        key: 16 if key[0] == "spot" and key[2] == "2025-01-01" else 13 for key in digits
    }


def test_archives_exist_once_their_period_has_ended(exchange: Simulator) -> None:
    url = f"{exchange.url}/data/spot"
    monthly = archive(exchange.url, "spot/monthly/klines/BTCUSDT/1h/BTCUSDT-1h-2024-12")
    absent = [
        "daily/klines/BTCUSDT/1m/BTCUSDT-1m-2025-01-02.zip",
        "monthly/klines/BTCUSDT/1m/BTCUSDT-1m-2025-01.zip",
        "daily/klines/BTCUSDT/1m/BTCUSDT-1m-2024-12-29.zip",
        "daily/klines/BTCUSDT/7m/BTCUSDT-7m-2024-12-30.zip",
        "daily/klines/DOGEUSDT/1m/DOGEUSDT-1m-2024-12-30.zip",
        "daily/fundingRate/BTCUSDT/BTCUSDT-fundingRate-2024-12-30.zip",
    ]
    assert len(monthly) == 48
    assert [refusal(f"{url}/{path}")[0] for path in absent] == [404] * len(absent)
    exchange.clock.advance(timedelta(days=1))
    assert len(archive(exchange.url, "spot/" + absent[0].removesuffix(".zip"))) == 1440


def test_funding_and_forced_orders_have_archives(exchange: Simulator) -> None:
    funding = archive(
        exchange.url, "futures/um/monthly/fundingRate/BTCUSDT/BTCUSDT-fundingRate-2024-12"
    )
    days = ("2024-12-30", "2024-12-31", "2025-01-01")
    folder = "futures/um/daily/liquidationSnapshot/XRPUSDT/XRPUSDT-liquidationSnapshot"
    forced = [archive(exchange.url, f"{folder}-{day}") for day in days]
    header = (
        "time,side,order_type,time_in_force,original_quantity,price,average_price,"
        "order_status,last_fill_quantity,accumulated_fill_quantity"
    )
    assert funding[0] == ["calc_time", "funding_interval_hours", "last_funding_rate"]
    assert len(funding) == 7
    assert [",".join(rows[0]) for rows in forced] == [header] * 3
    assert {row[1] for rows in forced for row in rows[1:]} == {"BUY", "SELL"}


def test_requests_the_exchange_refuses(exchange: Simulator) -> None:
    url = f"{exchange.url}/api/v3/klines"
    found = [
        refusal(f"{url}?symbol={query}")
        for query in ("NOPE&interval=1m", "BTCUSDT", "BTCUSDT&interval=7m")
    ]
    assert [(status, json.loads(text)["code"]) for status, text in found] == [
        (400, -1121),
        (400, -1102),
        (400, -1120),
    ]


def test_the_next_requests_are_refused_on_demand(exchange: Simulator) -> None:
    ping = f"{exchange.url}/api/v3/ping"
    changes = {"status": 418, "next_requests": 2, "retry_after": 7}
    assert post(f"{exchange.url}/simulator/faults", changes) == {}
    with pytest.raises(urllib.error.HTTPError) as caught:
        get(ping)
    with caught.value as error:
        assert (error.code, error.headers["Retry-After"]) == (418, "7")
        assert json.loads(error.read())["code"] == -1003
    assert refusal(ping)[0] == 418
    assert answer(ping) == {}


def test_ccxt_takes_faults_for_what_they_are(exchange: Simulator) -> None:
    made = client(exchange.url, "spot")
    exchange.faults.replace({"status": 429, "next_requests": 1})
    with pytest.raises(ccxt.DDoSProtection):
        made.fetch_time()
    exchange.faults.replace({"status": 503, "next_requests": 1})
    with pytest.raises(ccxt.ExchangeNotAvailable):
        made.fetch_time()
    made.session.close()


def test_a_share_of_requests_fails_at_a_rate(exchange: Simulator) -> None:
    exchange.faults.replace({"status": 500, "rate": 0.3})
    found = []
    for _ in range(100):
        try:
            get(f"{exchange.url}/api/v3/ping")
            found.append(200)
        except urllib.error.HTTPError as error:
            found.append(error.code)
            error.close()
    assert set(found) == {200, 500}
    assert 15 < found.count(500) < 45


def test_the_simulator_stops_when_its_user_fails() -> None:
    with pytest.raises(ZeroDivisionError), simulator(MARKET) as running:
        raise ZeroDivisionError
    with pytest.raises(urllib.error.URLError, match="refused"):
        get(f"{running.url}/api/v3/ping")


def test_a_port_in_use_is_reported(exchange: Simulator) -> None:
    port = int(exchange.url.rpartition(":")[2])
    with pytest.raises(OSError, match="address already in use"), simulator(MARKET, port=port):
        pass


def test_trades_of_later_days_are_found_by_id(exchange: Simulator) -> None:
    exchange.clock.advance(timedelta(days=3))
    url = f"{exchange.url}/fapi/v1"
    (newest,) = answer(f"{url}/trades?symbol=BTCUSDT&limit=1")
    found = answer(f"{url}/historicalTrades?symbol=BTCUSDT&fromId={newest['id']}")
    assert found == [newest]
    assert answer(f"{url}/historicalTrades?symbol=BTCUSDT&fromId=999999999") == []


def test_unknown_faults_are_refused(exchange: Simulator) -> None:
    with pytest.raises(ValueError, match="unknown faults"):
        exchange.faults.replace({"colour": 1})
    with pytest.raises(urllib.error.HTTPError, match="400") as caught:
        post(f"{exchange.url}/simulator/faults", {"status": 200})
    caught.value.close()


@pytest.mark.parametrize("kind", ["spot", "um"])
async def test_ccxt_keeps_a_book_in_step_with_rest(
    quick: Simulator, reader: Any, kind: str
) -> None:
    symbol = TYPES[kind][1]
    for _ in range(150):
        book = await asyncio.wait_for(reader.watch_order_book(symbol), 10)
        time = book["nonce"] // 100 * 500_000
        truth = MARKET.book(kind, "BTCUSDT", time)
        assert book["bids"] == [
            list(level)
            for level in zip(truth.bid_prices.tolist(), truth.bid_quantities.tolist(), strict=True)
        ]
        assert book["asks"] == [
            list(level)
            for level in zip(truth.ask_prices.tolist(), truth.ask_quantities.tolist(), strict=True)
        ]


@pytest.mark.parametrize("kind", ["spot", "um"])
async def test_ccxt_watches_candles_and_trades(reader: Any, kind: str) -> None:
    symbol = TYPES[kind][1]
    trades = await asyncio.wait_for(reader.watch_trades(symbol), 10)
    candles = await asyncio.wait_for(reader.watch_ohlcv(symbol, "1m"), 10)
    assert trades[0]["symbol"] == symbol
    assert candles[0][0] % 60_000 == 0


async def collect(url: str, count: int) -> list[Any]:
    async with aiohttp.ClientSession() as session, session.ws_connect(url) as socket:
        return [json.loads((await socket.receive(10)).data) for _ in range(count)]


async def test_a_combined_stream_comes_in_order_of_simulated_time() -> None:
    names = "btcusdt@aggTrade/btcusdt@kline_1m/xrpusdt@trade/btcusdt@depth5/xrpusdt@markPrice@1s"
    async with serving(MARKET, speed=math.inf) as exchange:
        url = exchange.url.replace("http", "ws")
        found = await collect(f"{url}/um/stream?streams={names}", 2000)
    times = [message["data"]["E"] for message in found]
    assert times == sorted(times)
    assert {message["stream"] for message in found} == set(names.split("/"))


async def test_streamed_candles_and_trades_equal_rest() -> None:
    names = "btcusdt@aggTrade/btcusdt@kline_1m"
    async with serving(MARKET, speed=math.inf) as exchange:
        url = exchange.url.replace("http", "ws")
        found = [
            message["data"] for message in await collect(f"{url}/spot/stream?streams={names}", 800)
        ]
        start = milliseconds(MARKET.end)
        async with aiohttp.ClientSession() as session:
            query = {"symbol": "BTCUSDT", "startTime": start, "limit": 1000}
            base = f"{exchange.url}/api/v3"
            async with session.get(f"{base}/aggTrades", params=query) as response:
                trades = await response.json()
            async with session.get(f"{base}/klines", params=query | {"interval": "1m"}) as response:
                candles = await response.json()
    streamed = [message["a"] for message in found if message["e"] == "aggTrade"]
    closed = [message["k"] for message in found if message["e"] == "kline" and message["k"]["x"]]
    # The candle that closes at the very moment of connection opened before ``start``.
    fresh = [candle for candle in closed if candle["t"] >= start]
    assert streamed == [trade["a"] for trade in trades[: len(streamed)]]
    assert len(fresh) > 10
    assert [[candle[name] for name in "tohlcvTqnVQ"] for candle in fresh] == [
        row[:11] for row in candles[: len(fresh)]
    ]


async def test_subscriptions_are_answered_with_their_id() -> None:
    async with serving(MARKET, speed=100.0) as exchange, aiohttp.ClientSession() as session:
        url = f"{exchange.url.replace('http', 'ws')}/um/ws"
        async with session.ws_connect(url) as socket:

            async def ask(method: str, *names: str) -> Any:
                await socket.send_json({"method": method, "params": list(names), "id": 9})
                while "id" not in (reply := json.loads((await socket.receive(10)).data)):
                    pass
                return reply

            assert await ask("SUBSCRIBE", "btcusdt@depth20@100ms") == {"result": None, "id": 9}
            assert json.loads((await socket.receive(10)).data)["e"] == "depthUpdate"
            listed = await ask("LIST_SUBSCRIPTIONS")
            assert listed == {"result": ["btcusdt@depth20@100ms"], "id": 9}
            assert await ask("UNSUBSCRIBE", "btcusdt@depth20@100ms") == {"result": None, "id": 9}
            assert (await ask("LIST_SUBSCRIPTIONS"))["result"] == []
            assert (await ask("SUBSCRIBE", "btcusdt@nonsense"))["error"]["code"] == 2
            with pytest.raises(TimeoutError):
                await socket.receive(0.3)


async def test_connections_drop_after_so_many_messages() -> None:
    async with serving(MARKET, speed=math.inf) as exchange, aiohttp.ClientSession() as session:
        exchange.faults.replace({"disconnect_after": 5})
        url = f"{exchange.url.replace('http', 'ws')}/spot/ws/btcusdt@trade"
        async with session.ws_connect(url) as socket:
            kinds = [(await socket.receive(10)).type for _ in range(6)]
    assert kinds[:5] == [aiohttp.WSMsgType.TEXT] * 5
    assert kinds[5] in (aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.ERROR)


def shape(value: Any, *, depth: int = 3) -> Any:
    """Return the keys and JSON types of a message; lists by their first element."""
    if isinstance(value, dict):
        return {name: shape(inner, depth=depth - 1) for name, inner in value.items()}
    if isinstance(value, list):
        return [shape(value[0], depth=depth - 1)] if value and depth > 0 else []
    return type(value).__name__


# Fields that newer messages have and older ones have not, and fields of testnet.
NEWER = {"nq", "st", "ps", "ap"}


def without_newer(message: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in message.items() if name not in NEWER}


@pytest.mark.parametrize(
    ("kind", "file", "stream"),
    [
        ("spot", "aggTrade", "btcusdt@aggTrade"),
        ("spot", "trade", "btcusdt@trade"),
        ("spot", "kline", "btcusdt@kline_1m"),
        ("spot", "bookTicker", "btcusdt@bookTicker"),
        ("spot", "depthUpdate", "btcusdt@depth@100ms"),
        ("um", "aggTrade", "btcusdt@aggTrade"),
        ("um", "trade", "btcusdt@trade"),
        ("um", "kline", "btcusdt@kline_1m"),
        ("um", "bookTicker", "btcusdt@bookTicker"),
        ("um", "depthUpdate", "btcusdt@depth@0ms"),
        ("um", "depth20_snapshot_testnet", "btcusdt@depth20@100ms"),
        ("um", "markPriceUpdate", "btcusdt@markPrice"),
        ("um", "forceOrder", "!forceOrder@arr"),
    ],
)
async def test_messages_have_the_shape_of_recorded_ones(
    shared_data: Path, kind: str, file: str, stream: str
) -> None:
    lines = (shared_data / "raw_messages" / kind / f"{file}.jsonl").read_text().splitlines()
    recorded = [json.loads(line) for line in lines]
    payloads = [without_newer(message.get("data", message)) for message in recorded]
    async with serving(MARKET, speed=math.inf) as exchange:
        url = f"{exchange.url.replace('http', 'ws')}/{kind}/stream?streams={stream}"
        found = (await collect(url, 3))[-1]["data"]
    assert shape(found) in [shape(payload) for payload in payloads]


@pytest.mark.parametrize(
    ("path", "file"),
    [
        ("api/v3/depth?symbol=BTCUSDT", "depth_spot"),
        ("api/v3/klines?symbol=BTCUSDT&interval=1m&limit=1", "klines_spot"),
        ("fapi/v1/openInterest?symbol=BTCUSDT", "openInterest_um"),
        ("fapi/v1/fundingRate?symbol=BTCUSDT", "fundingRate_cm"),
    ],
)
def test_answers_have_the_shape_of_recorded_ones(
    exchange: Simulator, shared_data: Path, path: str, file: str
) -> None:
    text = (shared_data / "raw_messages" / "rest" / f"{file}.jsonl").read_text()
    recorded = json.loads(text.splitlines()[0])
    found = answer(f"{exchange.url}/{path}")
    if "klines" in path:
        (found,) = found
        assert [type(value) for value in found] == [type(value) for value in recorded]
        return
    if isinstance(recorded, list):
        recorded[0].pop("rateType")
    assert shape(found) == shape(recorded)


def test_listings_have_the_shape_of_recorded_ones(exchange: Simulator, shared_data: Path) -> None:
    folder = shared_data / "raw_messages" / "rest"
    with gzip.open(folder / "exchangeInfo_spot_20211012.json.gz") as file:
        spot = json.load(file)["symbols"][0]
    futures = json.loads((folder / "exchangeInfo_um.jsonl").read_text())["symbols"][0]
    for base, recorded in (("api/v3", spot), ("fapi/v1", futures)):
        found = answer(f"{exchange.url}/{base}/exchangeInfo")["symbols"][0]
        assert {name: type(value) for name, value in found.items()} == {
            name: type(value) for name, value in recorded.items()
        }


def test_the_command_serves_until_it_is_terminated(project_root: Path) -> None:
    script = "import typer; from orchestration.commands.simulate import simulate as s; typer.run(s)"
    command = [sys.executable, "-c", script, "--port", "0", "--days", "1", "--speed", "0"]
    with subprocess.Popen(
        command, cwd=project_root, stdout=subprocess.PIPE, text=True, env=os.environ
    ) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(2)]
        url = lines[1].partition("=")[2].strip()
        assert url.startswith("http://127.0.0.1:")
        assert f"{url}  (now 2024-12-11T00:00:00+00:00 at speed 0)" in lines[0]
        assert answer(f"{url}/fapi/v1/time") == {"serverTime": 1733875200000}
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
        assert process.stdout.read() == "Exchange simulator stopped.\n"
