"""The trouble that the simulator makes on its streams, heard over real sockets."""

import asyncio
import json
import math
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import aiohttp
import pytest

from ingest.simulator import Market, serving
from ingest.simulator.faults import Faults

START = datetime(2024, 12, 30, tzinfo=UTC)
MARKET = Market(7, ["BTCUSDT"], start=START, days=2, edge=1.0)
MESSAGES = 600
STREAMS = "btcusdt@aggTrade/btcusdt@kline_1m/btcusdt@depth@100ms"


async def heard(count: int = MESSAGES, **faults: Any) -> list[str]:
    """Return the first messages of a combined connection."""
    async with serving(MARKET, speed=math.inf, now=START + timedelta(hours=9)) as exchange:
        exchange.faults.replace(faults)
        url = f"{exchange.url.replace('http', 'ws')}/um/stream?streams={STREAMS}"
        async with aiohttp.ClientSession() as session, session.ws_connect(url) as socket:
            return [str((await socket.receive(10)).data) for _ in range(count)]


def payloads(texts: list[str], event: str = "") -> Iterator[dict[str, Any]]:
    for text in texts:
        data = json.loads(text)["data"]
        if data["e"] == event or not event:
            yield data


@pytest.fixture(scope="module")
def undisturbed() -> list[str]:
    return asyncio.run(heard())


async def test_without_faults_messages_come_in_order_and_the_same_each_time(
    undisturbed: list[str],
) -> None:
    times = [data["E"] for data in payloads(undisturbed)]
    assert times == sorted(times)
    assert await heard() == undisturbed
    changes = list(payloads(undisturbed, "depthUpdate"))
    assert all(before["u"] == after["pu"] for before, after in pairwise(changes))


async def test_messages_are_left_out_or_come_twice(undisturbed: list[str]) -> None:
    fewer = await heard(300, missing=0.3)
    assert set(fewer) < set(undisturbed)
    assert Counter(fewer).most_common(1)[0][1] == 1
    assert 0.15 < 1 - 300 / (undisturbed.index(fewer[-1]) + 1) < 0.45
    assert await heard(300, missing=0.3) == fewer
    more = Counter(await heard(300, duplicate=0.3))
    assert set(more) < set(undisturbed)
    assert 30 < sum(count == 2 for count in more.values()) < 110


async def test_messages_change_places_or_come_late_but_all_of_them(
    undisturbed: list[str],
) -> None:
    swapped = await heard(300, reorder=0.2)
    assert swapped != undisturbed[:300]
    assert len(set(swapped) ^ set(undisturbed[:300])) <= 2
    late = await heard(300, delay=0.5, delay_s=2.0)
    times = [data["E"] for data in payloads(late)]
    latenesses = [max(times[: index + 1]) - time for index, time in enumerate(times)]
    assert 0 < max(latenesses) <= 2000
    assert sum(lateness > 0 for lateness in latenesses) > 50
    first = max(times) - 2000
    assert {text for text in undisturbed if json.loads(text)["data"]["E"] < first} <= set(late)


async def test_changes_of_books_are_left_out_and_nothing_else(undisturbed: list[str]) -> None:
    with_gaps = await heard(300, sequence_gap=0.2)
    changes = list(payloads(with_gaps, "depthUpdate"))
    gaps = sum(before["u"] != after["pu"] for before, after in pairwise(changes))
    assert 0.05 < gaps / len(changes) < 0.35
    until = undisturbed[: undisturbed.index(with_gaps[-1]) + 1]
    for event in ("aggTrade", "kline"):
        assert list(payloads(with_gaps, event)) == list(payloads(until, event))


async def test_messages_are_torn_or_are_none(undisturbed: list[str]) -> None:
    torn = await heard(300, truncated=0.2)
    assert all(any(whole.startswith(text) for whole in undisturbed) for text in torn)
    assert 30 < sum(text not in undisturbed for text in torn) < 100
    wrong = set(await heard(300, malformed=0.2)) - set(undisturbed)
    assert {"", "null", "[]"} <= wrong
    assert 20 < len(wrong) < 100


async def test_the_exchanges_clock_jumps_in_event_times_and_in_its_answer(
    undisturbed: list[str],
) -> None:
    jumped = list(payloads(await heard(50, clock_jump_s=-90.5)))
    still = list(payloads(undisturbed[:50]))
    assert jumped == [data | {"E": data["E"] - 90_500} for data in still]
    async with serving(MARKET) as exchange, aiohttp.ClientSession() as session:
        url = f"{exchange.url}/fapi/v1/time"
        async with session.get(url) as answer:
            before = (await answer.json())["serverTime"]
        exchange.faults.replace({"clock_jump_s": 7})
        async with session.get(url) as answer:
            assert (await answer.json())["serverTime"] - before == 7000


async def test_a_connection_goes_silent_and_stays_open() -> None:
    async with serving(MARKET, speed=math.inf) as exchange, aiohttp.ClientSession() as session:
        exchange.faults.replace({"silent_after": 5})
        url = f"{exchange.url.replace('http', 'ws')}/um/stream?streams={STREAMS}"
        async with session.ws_connect(url) as socket:
            for _ in range(5):
                assert (await socket.receive(10)).type is aiohttp.WSMsgType.TEXT
            with pytest.raises(TimeoutError):
                await socket.receive(0.3)
            assert not socket.closed
            exchange.faults.replace({})
            assert (await socket.receive(10)).type is aiohttp.WSMsgType.TEXT


@pytest.mark.parametrize("name", ["missing", "reorder", "sequence_gap", "delay_s"])
def test_what_is_no_share_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        Faults(**{name: -0.5})
