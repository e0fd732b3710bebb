"""Services over HTTP: each behind retries, a circuit breaker and a budget."""

import asyncio
import fcntl
import json
import os
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path
from typing import Any, TypeVar

import aiohttp
import pybreaker
from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception_type,
    stop_after_attempt,
    wait_random_exponential,
)

from ingest import health, logs
from ingest.service_settings import Endpoint

_log = logs.logger("services")
_STATES = {pybreaker.STATE_CLOSED: 0, pybreaker.STATE_HALF_OPEN: 1, pybreaker.STATE_OPEN: 2}
_PASSING = {
    HTTPStatus.REQUEST_TIMEOUT,
    HTTPStatus.TOO_MANY_REQUESTS,
    HTTPStatus.INTERNAL_SERVER_ERROR,
    HTTPStatus.BAD_GATEWAY,
    HTTPStatus.SERVICE_UNAVAILABLE,
    HTTPStatus.GATEWAY_TIMEOUT,
}
_jitter = wait_random_exponential(multiplier=0.02, max=1.0)

Answer = TypeVar("Answer")


class UnavailableError(RuntimeError):
    """A service gave no answer that can be used.

    Parameters
    ----------
    reason : str
        One of budget, breaker, timeout, connection, status and malformed.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class _PassingError(UnavailableError):
    """The next attempt may succeed, after ``pause_s`` seconds at the earliest."""

    def __init__(self, reason: str, message: str, *, pause_s: float = 0.0) -> None:
        super().__init__(reason, message)
        self.pause_s = pause_s


class MalformedError(UnavailableError):
    """The service answered something else than was agreed."""

    def __init__(self, message: str) -> None:
        super().__init__("malformed", message)


class Service:
    """One endpoint and what is known of it: its breaker and what it has cost today.

    Parameters
    ----------
    name : str
        In metrics and logs, and of the file of its budget.
    endpoint : Endpoint
        Address and bounds.
    directory : Path
        Where the budget is counted, so that a restart does not begin a new one.
    clock : callable
        Gives the UTC time; a budget's day is that of UTC.
    """

    def __init__(
        self,
        name: str,
        endpoint: Endpoint,
        directory: Path,
        *,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.name = name
        self.endpoint = endpoint
        self._budget = _Budget(name, endpoint, directory, clock)
        self._breaker = pybreaker.CircuitBreaker(
            fail_max=endpoint.failures_to_open,
            reset_timeout=endpoint.open_s,
            name=name,
            listeners=[_Watch()],
            throw_new_error_on_trip=False,
        )
        health.BREAKER.labels(name).set(_STATES[self._breaker.current_state])

    async def post(
        self,
        session: aiohttp.ClientSession,
        path: str,
        body: bytes,
        headers: Mapping[str, str],
        read: Callable[[bytes, Mapping[str, str]], Answer],
    ) -> Answer:
        """Send a request, more than once if need be, and return what `read` makes of the answer.

        Parameters
        ----------
        session : aiohttp.ClientSession
            Connections.
        path : str
            Appended to the endpoint's address.
        body, headers
            The request; the token is added.
        read : callable
            Takes body and headers of the answer; raises MalformedError.

        Raises
        ------
        UnavailableError
            If the budget is spent, the breaker is open, or no attempt gave an answer in time.
        """
        attempts = AsyncRetrying(
            retry=retry_if_exception_type(_PassingError),
            wait=_pause,
            stop=stop_after_attempt(self.endpoint.attempts),
            reraise=True,
        )
        try:
            async with asyncio.timeout(self.endpoint.deadline_s):
                async for attempt in attempts:
                    with attempt:
                        self._budget.require()
                        with self._breaker.calling():
                            self._budget.spend()
                            return await self._once(session, path, body, headers, read)
        except pybreaker.CircuitBreakerError as error:
            raise UnavailableError("breaker", f"{self.name}: the breaker is open") from error
        except TimeoutError as error:
            raise UnavailableError(
                "timeout", f"{self.name}: no answer within {self.endpoint.deadline_s:g} s"
            ) from error
        raise AssertionError("tenacity ends with an answer or an error")

    async def _once(
        self,
        session: aiohttp.ClientSession,
        path: str,
        body: bytes,
        headers: Mapping[str, str],
        read: Callable[[bytes, Mapping[str, str]], Answer],
    ) -> Answer:
        begun = time.perf_counter()
        outcome = "cancelled"
        try:
            async with (
                asyncio.timeout(self.endpoint.timeout_s),
                session.post(
                    f"{self.endpoint.url}{path}",
                    data=body,
                    headers={**self.endpoint.headers, **headers},
                    allow_redirects=False,
                ) as answer,
            ):
                content = await answer.read()
                _require_success(self.name, answer, content)
                found = read(content, answer.headers)
                outcome = "ok"
                return found
        except UnavailableError as error:
            outcome = error.reason
            raise
        except TimeoutError as error:
            outcome = "timeout"
            raise _PassingError(
                outcome, f"{self.name}: no answer within {self.endpoint.timeout_s:g} s"
            ) from error
        except aiohttp.ClientError as error:
            outcome = "connection"
            raise _PassingError(outcome, f"{self.name}: {error}") from error
        finally:
            health.REQUESTS.labels(self.name, outcome).inc()
            health.REQUEST_SECONDS.labels(self.name).observe(time.perf_counter() - begun)


def _require_success(name: str, answer: aiohttp.ClientResponse, content: bytes) -> None:
    if answer.status == HTTPStatus.OK:
        return
    # Some servers repeat what they were sent.
    told = logs.redact(content[:200])
    message = f"{name}: HTTP {answer.status}: {told}"
    if answer.status not in _PASSING:
        raise UnavailableError("status", message)
    pause = answer.headers.get("Retry-After", "")
    raise _PassingError("status", message, pause_s=float(pause) if pause.isdigit() else 0.0)


def _pause(state: RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome else None
    return max(_jitter(state), getattr(error, "pause_s", 0.0))


class _Watch(pybreaker.CircuitBreakerListener):
    """Tells of a breaker's changes."""

    def state_change(self, cb: pybreaker.CircuitBreaker, old_state: Any, new_state: Any) -> None:
        health.BREAKER.labels(cb.name).set(_STATES[new_state.name])
        tell = _log.error if new_state.name == pybreaker.STATE_OPEN else _log.info
        tell("breaker", service=cb.name, state=new_state.name, before=old_state and old_state.name)


class _Budget:
    """Counts the requests of a UTC day in a file, before they are made."""

    def __init__(
        self, name: str, endpoint: Endpoint, directory: Path, clock: Callable[[], datetime]
    ) -> None:
        self._name = name
        self._endpoint = endpoint
        self._file = directory / f"{name}.json"
        self._clock = clock
        self._alerted_on = ""
        directory.mkdir(parents=True, exist_ok=True)
        self._count(0)

    def require(self) -> None:
        allowed = self._endpoint.requests_allowed
        if allowed is None or self._count(0) < allowed:
            return
        today = self._today()
        if self._alerted_on != today:
            self._alerted_on = today
            _log.error("budget spent", service=self._name, requests=allowed, day=today)
        raise UnavailableError("budget", f"{self._name}: the budget of {today} is spent")

    def spend(self) -> None:
        self._count(1)

    def _count(self, more: int) -> int:
        number = os.open(self._file, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(number, fcntl.LOCK_EX)
            text = os.pread(number, 1024, 0)
            counted = json.loads(text) if text else {}
            requests: int = counted.get("requests", 0) if counted.get("day") == self._today() else 0
            requests += more
            if more:
                # One write of one length: a kill leaves the old count or the new one.
                line = json.dumps({"day": self._today(), "requests": requests})
                os.pwrite(number, f"{line:<62}\n".encode(), 0)
        finally:
            os.close(number)
        health.SPENT.labels(self._name, "requests").set(requests)
        health.SPENT.labels(self._name, "cost").set(requests * self._endpoint.cost_per_request)
        allowed = self._endpoint.requests_allowed
        if allowed is not None:
            health.SPENT.labels(self._name, "requests_left").set(allowed - requests)
        return requests

    def _today(self) -> str:
        return self._clock().date().isoformat()
