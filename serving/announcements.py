"""Signals for those who wait for them: a line of the log, of the standard output, a webhook."""

import queue
import threading
from types import TracebackType
from typing import Self
from urllib.error import URLError
from urllib.request import Request, urlopen

import orjson
from pydantic import SecretStr

from ingest import logs
from serving.loop import Signal

TIMEOUT_S = 5.0
#: What a webhook that does not answer may keep waiting; more is dropped, and logged.
PENDING = 10_000
_log = logs.logger("loop")


class Announcements:
    """Tells signals, a webhook from a thread of its own, so that nothing waits for it.

    Each signal carries its key; a webhook may hear of one twice after a restart, never of one
    that is not on disk.

    Parameters
    ----------
    webhook : SecretStr or None
        Address that each signal is posted to as JSON; it may hold a secret and is not logged.
    stdout : bool
        Whether to print each signal as a line of JSON.
    """

    def __init__(self, webhook: SecretStr | None, *, stdout: bool = False) -> None:
        self._webhook = webhook
        self._stdout = stdout
        self._pending: queue.Queue[bytes | None] = queue.Queue(PENDING)
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
        if self._webhook:
            self._pending.put(None)
            self._thread.join(TIMEOUT_S)

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
                self._pending.put_nowait(text)
            except queue.Full:
                _log.error("webhook", error=f"{PENDING} signals wait for it: this one is dropped")

    def _post_all(self) -> None:
        while (text := self._pending.get()) is not None:
            self._post(text)

    def _post(self, text: bytes) -> None:
        if self._webhook is None:
            return
        headers = {"Content-Type": "application/json"}
        request = Request(self._webhook.get_secret_value(), text, headers)  # noqa: S310
        try:
            with urlopen(request, timeout=TIMEOUT_S):  # noqa: S310
                pass
        except (URLError, TimeoutError, OSError) as error:
            _log.error("webhook", error=type(error).__name__)
