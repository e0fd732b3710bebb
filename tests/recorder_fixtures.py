"""What a recording left: rows of its warehouse, frames of its log."""

from pathlib import Path
from typing import Any

from ingest import warehouse
from ingest.segments import Frame, SegmentReader
from ingest.settings import Settings


def query(settings: Settings, sql: str) -> list[tuple[Any, ...]]:
    with warehouse.reading(settings.database) as connection:
        return connection.execute(sql).fetchall()


def frames_of(directory: Path) -> list[Frame]:
    with SegmentReader(directory) as reader:
        return [frame for part in iter(reader.read, []) for frame in part]
