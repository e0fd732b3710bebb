"""The outbox: what the scoring loop said, as rows of the raw tables."""

from collections.abc import Iterable

import pyarrow as pa

from ingest.segments import Frame


def rows(frames: Iterable[Frame]) -> dict[str, pa.Table]:
    """Return the rows of an outbox's frames by raw table."""
    raise NotImplementedError("the scoring loop writes no outbox yet")
