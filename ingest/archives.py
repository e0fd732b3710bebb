"""The exchange's public archives over plain HTTP."""

import hashlib
import shutil
import urllib.request
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Literal
from urllib.error import HTTPError, URLError
from urllib.parse import quote

from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception,
    stop_after_attempt,
    wait_random_exponential,
)

from ingest.batches import Series
from ingest.settings import Settings

PUBLIC_ARCHIVES = "https://data.binance.vision"
ATTEMPTS = 6
DOWNLOADS_AHEAD = 4
_TIMEOUT_S = 60
_BACK_OFF = wait_random_exponential(multiplier=0.2, max=20)
_NOT_FOUND = 404
_TOO_MANY_REQUESTS = (418, 429)
_SERVER_ERROR = 500
_WITHDRAWN = "withdrawn"

Period = Literal["monthly", "daily"]
_FOLDERS: dict[tuple[str, str | None], tuple[str, tuple[Period, ...]]] = {
    ("klines", "spot"): ("klines", ("monthly", "daily")),
    ("klines", "um"): ("klines", ("monthly", "daily")),
    ("trades", "spot"): ("aggTrades", ("monthly", "daily")),
    ("trades", "um"): ("aggTrades", ("monthly", "daily")),
    ("funding", "um"): ("fundingRate", ("monthly",)),
    ("open_interest", "um"): ("metrics", ("daily",)),
    ("liquidations", "um"): ("liquidationSnapshot", ("daily",)),
}


@dataclass(frozen=True)
class Archive:
    """A file of the public archive: a series in the whole months or days ``[start, end)``."""

    series: Series
    period: Period
    start: datetime
    end: datetime

    @property
    def path(self) -> str:
        """Path below the address of the archives."""
        folder, _ = _FOLDERS[self.series.kind, self.series.market]
        market = "spot" if self.series.market == "spot" else "futures/um"
        interval = self.series.interval
        date = self.start.strftime("%Y-%m" if self.period == "monthly" else "%Y-%m-%d")
        directory = f"data/{market}/{self.period}/{folder}/{self.series.symbol}"
        if interval:
            directory = f"{directory}/{interval}"
        return f"{directory}/{self.series.symbol}-{interval or folder}-{date}.zip"


@dataclass(frozen=True)
class Download:
    """An archive on the local disk, as ``file``.

    Without a file it is not published, or ``problem`` says why it could not be had.
    """

    archive: Archive
    file: Path | None = None
    sha256: str | None = None
    problem: str | None = None


def periods(series: Series) -> tuple[Period, ...]:
    """Return the periods by which the exchange archives a series; none if it does not."""
    return _FOLDERS.get((series.kind, series.market), ("", ()))[1]


def plan(
    series: Series, start: datetime, end: datetime, now: datetime
) -> tuple[list[Archive], list[tuple[datetime, datetime]]]:
    """Split a span of time into archives, as large as possible, and what no archive can hold.

    Parameters
    ----------
    series : Series
        What is ingested.
    start, end : datetime
        UTC interval ``[start, end)``.
    now : datetime
        Periods that end after it are not archived yet.

    Returns
    -------
    archives : list of Archive
        Oldest first.
    rest : list of (datetime, datetime)
        Spans outside them, merged, oldest first.
    """
    archives: list[Archive] = []
    rest: list[tuple[datetime, datetime]] = []
    cursor = start
    while cursor < end:
        archive = _archive_from(series, cursor, min(end, now))
        if archive:
            archives.append(archive)
            cursor = archive.end
            continue
        until = min(end, _midnight(cursor) + timedelta(days=1))
        rest.append((cursor, until))
        cursor = until
    return archives, merge(rest)


def days(archive: Archive) -> list[Archive]:
    """Return the daily archives that hold the same as a monthly one."""
    if "daily" not in periods(archive.series):
        return []
    count = (archive.end - archive.start).days
    starts = [archive.start + timedelta(days=day) for day in range(count)]
    return [Archive(archive.series, "daily", day, day + timedelta(days=1)) for day in starts]


def merge(spans: list[tuple[datetime, datetime]]) -> list[tuple[datetime, datetime]]:
    """Join spans that touch; they are sorted first."""
    merged: list[tuple[datetime, datetime]] = []
    for start, end in sorted(spans):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


def downloads(settings: Settings, archives: list[Archive]) -> Iterator[Download]:
    """Yield archives in order as they arrive, a few ahead of the reader.

    Each file is deleted when the next is asked for.
    """
    with (
        TemporaryDirectory(dir=_directory(settings)) as directory,
        ThreadPoolExecutor(DOWNLOADS_AHEAD) as pool,
    ):
        following = iter(archives)
        waiting = deque(
            pool.submit(_download, settings, archive, Path(directory))
            for archive in islice(following, DOWNLOADS_AHEAD)
        )
        while waiting:
            download = waiting.popleft().result()
            for archive in islice(following, 1):
                waiting.append(pool.submit(_download, settings, archive, Path(directory)))
            yield download
            if download.file:
                download.file.unlink()


def republished(settings: Settings, landed: Mapping[Archive, str]) -> list[Archive]:
    """Return the archives whose published checksum is another than the sha256 that landed.

    One whose checksum cannot be had now is taken for republished, so that its download says why;
    one that is no longer published is not.
    """
    with ThreadPoolExecutor(DOWNLOADS_AHEAD) as pool:
        published = list(pool.map(partial(_published, settings), landed))
    return [
        archive
        for archive, sha256 in zip(landed, published, strict=True)
        if sha256 not in (_WITHDRAWN, landed[archive])
    ]


def _archive_from(series: Series, start: datetime, end: datetime) -> Archive | None:
    for period in periods(series):
        until = start + timedelta(days=1)
        if period == "monthly":
            until = (start.replace(day=1) + timedelta(days=32)).replace(day=1)
        is_whole = start == _midnight(start) and (period == "daily" or start.day == 1)
        if is_whole and until <= end:
            return Archive(series, period, start, until)
    return None


def _midnight(time: datetime) -> datetime:
    return datetime(time.year, time.month, time.day, tzinfo=UTC)


def _directory(settings: Settings) -> Path:
    directory = settings.database.parent / "downloads"
    directory.mkdir(parents=True, exist_ok=True)
    return directory


def _url(settings: Settings, archive: Archive) -> str:
    return f"{settings.exchange_url or PUBLIC_ARCHIVES}/{quote(archive.path)}"


def _attempts() -> Retrying:
    return Retrying(
        retry=retry_if_exception(_may_pass),
        wait=_wait,
        stop=stop_after_attempt(ATTEMPTS),
        reraise=True,
    )


def _published(settings: Settings, archive: Archive) -> str | None:
    try:
        return _attempts()(_checksum, _url(settings, archive))
    except HTTPError as error:
        return _WITHDRAWN if error.code == _NOT_FOUND else None
    except (URLError, ConnectionError, TimeoutError):
        return None


def _download(settings: Settings, archive: Archive, directory: Path) -> Download:
    url, attempts = _url(settings, archive), _attempts()
    file = directory / Path(archive.path).name
    try:
        published = attempts(_checksum, url)
        attempts(_fetch, url, file)
    except (URLError, ConnectionError, TimeoutError) as error:
        if isinstance(error, HTTPError) and error.code == _NOT_FOUND:
            return Download(archive)
        return Download(archive, problem=f"{url} could not be fetched: {error}")
    with file.open("rb") as stream:
        sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
    if sha256 != published:
        problem = (
            f"{url} has SHA-256 {sha256}, but {url}.CHECKSUM says {published}: "
            "nothing of it was landed; run this again"
        )
        return Download(archive, problem=problem)
    return Download(archive, file, sha256)


def _checksum(url: str) -> str:
    with _get(f"{url}.CHECKSUM") as answer:
        return answer.read().decode().split()[0]


def _fetch(url: str, file: Path) -> None:
    with _get(url) as answer, file.open("wb") as target:
        shutil.copyfileobj(answer, target)


@contextmanager
def _get(url: str) -> Iterator[IO[bytes]]:
    try:
        answer = urllib.request.urlopen(url, timeout=_TIMEOUT_S)  # noqa: S310
    except HTTPError as error:
        error.close()
        raise
    with answer:
        yield answer


def _may_pass(error: BaseException) -> bool:
    if isinstance(error, HTTPError):
        return error.code in _TOO_MANY_REQUESTS or error.code >= _SERVER_ERROR
    return isinstance(error, URLError | ConnectionError | TimeoutError)


def _wait(state: RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome else None
    asked = error.headers.get("Retry-After", "") if isinstance(error, HTTPError) else ""
    return max(float(asked) if asked.isdigit() else 0.0, _BACK_OFF(state))
