"""The simulated clock."""

from __future__ import annotations

import math
import time
from datetime import datetime, timedelta

from ingest.simulator.source import instant, microseconds


class Clock:
    """Simulated time: frozen (speed 0), proportional, or pulled along by its readers (inf).

    Raises
    ------
    ValueError
        If the speed is negative.
    """

    def __init__(self, start: datetime, speed: float) -> None:
        if not speed >= 0.0:
            raise ValueError(f"expected a speed of 0 (frozen) or more, found {speed}")
        self.speed = speed
        self._start = microseconds(start)
        self._started_at = time.monotonic()

    @property
    def follows_readers(self) -> bool:
        """Whether time moves only as fast as streams are read."""
        return math.isinf(self.speed)

    def now(self) -> int:
        """Return simulated microseconds since the epoch."""
        if self.speed == 0.0 or self.follows_readers:
            return self._start
        return self._start + int((time.monotonic() - self._started_at) * self.speed * 1e6)

    def advance(self, by: timedelta) -> None:
        """Move time forward at once."""
        self._start += by // timedelta(microseconds=1)

    def reach(self, time: int) -> None:
        """Move time forward to an instant, unless it is there already."""
        self._start = max(self._start, time)

    def __str__(self) -> str:
        return f"{instant(self.now()).isoformat()} at speed {self.speed:g}"
