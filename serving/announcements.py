"""Signals for those who wait for them: a line of the log, of the standard output, a webhook."""

import queue
import threading
import time
from functools import partial
from http.client import HTTPException
from types import TracebackType
from typing import Self
from urllib.error import HTTPError, URLError
from urllib.request import HTTPRedirectHandler, Request, build_opener

import orjson
from pydantic import SecretStr
from tenacity import RetryCallState, Retrying, retry_if_exception_type, wait_random_exponential

from ingest import health, logs
from serving.loop import Signal

TIMEOUT_S = 5.0
#: A signal is posted again and again for so long, with pauses that double up to the longest.
TRIED_FOR_S = 60.0
FIRST_PAUSE_S = 0.2
LONGEST_PAUSE_S = 5.0
#: What a webhook that does not answer may keep waiting; more is dropped, and logged.
PENDING = 10_000
_TRY_AGAIN = {408, 425, 429}
_log = logs.logger("loop")


class _NoRedirects(HTTPRedirectHandler):
    """Has an answer that sends elsewhere be an error: what is posted goes nowhere else."""

    def redirect_request(self, *_: object) -> None:
        """Follow nobody."""


_open = build_opener(_NoRedirects).open


class _FailedError(RuntimeError):
    """The webhook may take it next time; the message says what happened."""


class _RefusedError(RuntimeError):
    """The webhook will never take it."""


class Announcements:
    """Tells signals, a webhook from a thread of its own, so that nothing waits for it.

    The webhook gets signals in the order in which they were said, each until it answers 2xx, for
    at most a minute; other answers of 300 to 499 than 408, 425 and 429 are final. It may hear of
    a signal twice, after an answer that was lost or after a restart, never of one that is not on
    disk; each carries its key.

    Parameters
    ----------
    webhook : SecretStr or None
        Address that each signal is posted to as JSON; it may hold a secret and is not logged.
    stdout : bool
        Whether to print each signal as a line of JSON.
    timeout_s, tried_for_s : float
        Seconds for an answer, and for a signal.

    Raises
    ------
    ValueError
        If the address is none of HTTP.
    """

    def __init__(
        self,
        webhook: SecretStr | None,
        *,
        stdout: bool = False,
        timeout_s: float = TIMEOUT_S,
        tried_for_s: float = TRIED_FOR_S,
    ) -> None:
        if webhook and not webhook.get_secret_value().startswith(("http://", "https://")):
            raise ValueError("TAPEHOUSE_WEBHOOK_URL is no address that begins with http(s)://")
        self._webhook = webhook
        self._stdout = stdout
        self._timeout_s = timeout_s
        self._tried_for_s = tried_for_s
        self._stopping = threading.Event()
        self._pending: queue.Queue[tuple[float, bytes] | None] = queue.Queue(PENDING)
        self._thread = threading.Thread(target=self._post_all, name="webhook", daemon=True)

    def __enter__(self) -> Self:
        if self._webhook:
            self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stopping.set()
        if self._webhook:
            self._pending.put(None)
            self._thread.join(self._timeout_s)

    def tell(self, signal: Signal) -> None:
        """Announce a signal."""
        text = orjson.dumps(signal)
        _log.info(
            "signal",
            model=signal["model_name"],
            symbol=signal["symbol"],
            opened_at=str(signal["opened_at"]),
            signal=signal["signal"],
            probability=signal["probability"],
        )
        if self._stdout:
            print(text.decode(), flush=True)
        if self._webhook:
            try:
                self._pending.put_nowait((time.monotonic(), text))
            except queue.Full:
                self._drop(f"{PENDING} signals wait for it")

    def _post_all(self) -> None:
        while (pending := self._pending.get()) is not None:
            told_at, text = pending
            posting = Retrying(
                retry=retry_if_exception_type(_FailedError),
                wait=wait_random_exponential(FIRST_PAUSE_S, max=LONGEST_PAUSE_S),
                sleep=self._pause,
                stop=partial(self._is_over, told_at),
                before_sleep=lambda _: health.WEBHOOK.labels("failed").inc(),
                reraise=True,
            )
            try:
                posting(self._post, text)
            except (_FailedError, _RefusedError) as error:
                self._drop(str(error))
            else:
                health.WEBHOOK.labels("delivered").inc()

    def _pause(self, seconds: float) -> None:
        self._stopping.wait(seconds)

    def _is_over(self, told_at: float, _: RetryCallState) -> bool:
        """Whether to give a signal up: once told to stop, each that still waits is tried once."""
        return self._stopping.is_set() or time.monotonic() - told_at > self._tried_for_s

    def _post(self, text: bytes) -> None:
        if self._webhook is None:
            return
        headers = {"Content-Type": "application/json"}
        request = Request(self._webhook.get_secret_value(), text, headers)  # noqa: S310
        try:
            with _open(request, timeout=self._timeout_s):
                pass
        except HTTPError as error:
            with error:
                is_final = error.code < 500 and error.code not in _TRY_AGAIN
                raise (_RefusedError if is_final else _FailedError)(
                    f"it answered {error.code}"
                ) from None
        except (URLError, HTTPException, OSError) as error:
            raise _FailedError(type(error).__name__) from None

    def _drop(self, reason: str) -> None:
        health.WEBHOOK.labels("dropped").inc()
        _log.error("webhook", dropped=reason)
