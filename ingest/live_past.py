"""What an earlier recording knew when it ended, as its log tells."""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ingest.live_books import known_until
from ingest.messages import RECORDER, message
from ingest.segments import Frame, read_segment, segments

# So much of a log that says nowhere what was known, if there is more, is read.
_MOST_BYTES = 16_000_000
_SEARCHED = ("@kline", "rest:klines", "@depth")


class Past(NamedTuple):
    """What was known: of candles what was expected then and was heard since; of books the end.

    ``books`` gives epoch microseconds by symbol.
    """

    candles: Mapping[str, int]
    heard: Sequence[Frame]
    books: dict[str, int]


def past(log: Path) -> Past:
    """Read the end of a log, back to its last heartbeat: that says ``candles`` and ``books``."""
    known: dict[str, Any] = {}
    heard: list[Frame] = []
    read = 0
    for number in reversed(segments(log)):
        since: list[Frame] = []
        for frame in itertools.chain.from_iterable(read_segment(log, number)):
            read += len(frame.payload)
            said = message(frame) if frame.stream == RECORDER else {}
            if "candles" in said:
                known, since = said, []
            elif any(name in frame.stream for name in _SEARCHED):
                since.append(frame)
        heard = since + heard
        if known or read > _MOST_BYTES:
            break
    return Past(known.get("candles", {}), heard, known.get("books", {}) | known_until(heard))
