"""The bounds of what the logs may take of the disk."""

import contextlib
import os
import shutil
from pathlib import Path

from ingest.segments import prune
from ingest.settings import Settings

_GB = 1e9
# Landed segments give way from this share of the bound on, and while this many times the reserve
# is not free.
_FULL_SHARE = 0.8
_FREE_RESERVES = 2.0


class DiskFullError(RuntimeError):
    """There is no room to record."""


def size(directory: Path) -> int:
    """Return the bytes of the files of a directory of logs."""
    total = 0
    for log in directory.glob("*/"):
        with os.scandir(log) as files:
            for file in files:
                # Some are compressed or deleted this very moment.
                with contextlib.suppress(FileNotFoundError):
                    total += file.stat().st_size
    return total


def check_room(settings: Settings) -> int:
    """Return the bytes of the logs; raise DiskFullError if there is no room for another frame."""
    check_reserve(settings)
    used = size(settings.segments_directory)
    if used >= settings.segments_max_gb * _GB:
        raise DiskFullError(
            f"not recording: the logs in {settings.segments_directory} hold {used / _GB:.1f} GB, "
            f"TAPEHOUSE_SEGMENTS_MAX_GB is {settings.segments_max_gb:g}; land them with "
            "`tapehouse land`, after which the oldest give way, or raise the bound"
        )
    return used


def check_reserve(settings: Settings) -> None:
    """Raise DiskFullError if less than the reserve is free."""
    free = _free(settings)
    if free < settings.disk_reserve_gb * _GB:
        raise DiskFullError(
            f"not recording: the disk of {settings.segments_directory} has {free / _GB:.1f} GB "
            f"left, less than TAPEHOUSE_DISK_RESERVE_GB = {settings.disk_reserve_gb:g}; make room, "
            "or lower the reserve"
        )


def make_room(settings: Settings, log: Path, landed_before: int) -> int:
    """Delete landed segments of a log, oldest first, where the bounds are near.

    ``landed_before`` numbers the first segment that has not landed whole. Returns the bytes freed.
    """
    used = size(settings.segments_directory) - _FULL_SHARE * settings.segments_max_gb * _GB
    short = _FREE_RESERVES * settings.disk_reserve_gb * _GB - _free(settings)
    excess = int(max(used, short))
    return prune(log, landed_before, excess=excess) if excess > 0 else 0


def _free(settings: Settings) -> int:
    directory = settings.segments_directory
    while not directory.exists():
        directory = directory.parent
    return shutil.disk_usage(directory).free
