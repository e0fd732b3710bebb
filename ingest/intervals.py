"""The lengths of candles that are known."""

from collections.abc import Iterable

MINUTE_US = 60_000_000
INTERVALS_US = {
    "1m": MINUTE_US,
    "3m": 3 * MINUTE_US,
    "5m": 5 * MINUTE_US,
    "15m": 15 * MINUTE_US,
    "30m": 30 * MINUTE_US,
    "1h": 60 * MINUTE_US,
    "2h": 120 * MINUTE_US,
    "4h": 240 * MINUTE_US,
    "6h": 360 * MINUTE_US,
    "8h": 480 * MINUTE_US,
    "12h": 720 * MINUTE_US,
    "1d": 1440 * MINUTE_US,
}


def check_intervals(intervals: Iterable[str]) -> None:
    """Raise ValueError if an interval has no fixed length that is known."""
    for interval in intervals:
        if interval not in INTERVALS_US:
            raise ValueError(f"interval {interval} is not one of {', '.join(INTERVALS_US)}")
