"""What becomes of a connection's messages on their way: lost, late, twice, torn, out of order."""

from __future__ import annotations

import heapq
import json
import random
from collections.abc import Iterable
from typing import Any

from ingest.simulator.faults import Faults
from ingest.simulator.source import SECOND

Named = tuple[int, str, dict[str, Any]]
_DEPTH_CHANGES = ("@depth", "@depth@100ms", "@depth@250ms", "@depth@500ms")

# What is put in the place of what; of nothing: of the whole text.
_MALFORMED = (
    *(("", ""), ("", "null"), ("", "[]"), ("", "<html>502 Bad Gateway</html>")),
    *(('"data"', '"date"'), (":", "="), ('"s"', '"symbol"'), ('": "', '": "x')),
)


class Disorder:
    """Carries the messages of one connection, as the faults say.

    Parameters
    ----------
    faults : Faults
        Shares are drawn for each message anew, from a generator seeded by the connection.
    connection : int
        Its number.
    is_combined : bool
        Whether payloads are wrapped with the name of their stream.
    """

    def __init__(self, faults: Faults, connection: int, *, is_combined: bool) -> None:
        self._faults = faults
        self._random = random.Random(connection)  # noqa: S311
        self._is_combined = is_combined
        self._held: list[tuple[int, int, str]] = []
        self._count = 0

    def carried(self, messages: Iterable[Named], end: int) -> list[str]:
        """Return the texts that arrive before simulated time `end`.

        Parameters
        ----------
        messages : iterable of (int, str, dict)
            Time, stream and payload, in order.
        end : int
            Microseconds; what is delayed beyond it is kept for the next call.
        """
        if not self._held and not self._faults.disturbs:
            return [self._text(name, payload) for _, name, payload in messages]
        for time, name, payload in messages:
            self._send(time, name, payload)
        texts = []
        while self._held and self._held[0][0] < end:
            texts.append(heapq.heappop(self._held)[2])
        last = len(texts) - 1
        for index in range(last):
            if self._happens(self._faults.reorder):
                texts[index], texts[index + 1] = texts[index + 1], texts[index]
        return texts

    def _send(self, time: int, name: str, payload: dict[str, Any]) -> None:
        faults = self._faults
        if self._happens(faults.missing):
            return
        if name.endswith(_DEPTH_CHANGES) and self._happens(faults.sequence_gap):
            return
        if faults.clock_jump_s and "E" in payload:
            payload = payload | {"E": payload["E"] + int(faults.clock_jump_s * 1000)}
        text = self._text(name, payload)
        if self._happens(faults.truncated):
            text = text[: self._random.randrange(len(text))]
        elif self._happens(faults.malformed):
            found, instead = self._random.choice(_MALFORMED)
            text = text.replace(found, instead) if found else instead
        copies = 2 if self._happens(faults.duplicate) else 1
        for _ in range(copies):
            late = self._random.random() * faults.delay_s if self._happens(faults.delay) else 0.0
            self._count += 1
            heapq.heappush(self._held, (time + int(late * SECOND), self._count, text))

    def _happens(self, share: float) -> bool:
        return share > 0.0 and self._random.random() < share

    def _text(self, name: str, payload: dict[str, Any]) -> str:
        return json.dumps({"stream": name, "data": payload} if self._is_combined else payload)
