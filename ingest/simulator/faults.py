"""Trouble on demand: refusals, failures and lost connections."""

from __future__ import annotations

from dataclasses import dataclass, fields
from http import HTTPStatus
from typing import Any

import numpy as np
from aiohttp import web
from aiohttp.typedefs import Handler

_MESSAGES = {
    418: (-1003, "Way too much request weight used; IP banned. Please use the websocket."),
    429: (-1003, "Too many requests; please use the websocket for live updates."),
}
_SHARES = (*("missing", "duplicate", "reorder", "malformed", "truncated", "delay", "sequence_gap"),)
_OTHER = (-1000, "An unknown error occurred while processing the request.")


@dataclass
class Faults:
    """What goes wrong from now on.

    Attributes
    ----------
    status : int
        HTTP status of a refused request, such as 418, 429 or 503.
    next_requests : int
        So many requests are refused, then none.
    rate : float
        Share of the requests that are refused besides, 0 to 1, at random but seeded.
    retry_after : int
        Seconds in the ``Retry-After`` header of 418 and 429.
    disconnect_after, silent_after : int
        A WebSocket connection is dropped, or stays open and says nothing more, after so many
        messages; 0 = never.
    missing, duplicate, reorder, malformed, truncated : float
        Share of the stream messages that are left out, come twice, change places with the next
        one, are no message of the exchange, or end too early.
    delay, delay_s : float
        Share of the stream messages that come late, and by how many simulated seconds at most.
    sequence_gap : float
        Share of the changes of books that are left out.
    clock_jump_s : float
        Seconds by which the exchange's own clock is ahead, in event times (E) and `/time`.
    """

    status: int = 429
    next_requests: int = 0
    rate: float = 0.0
    retry_after: int = 1
    disconnect_after: int = 0
    silent_after: int = 0
    missing: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0
    malformed: float = 0.0
    truncated: float = 0.0
    delay: float = 0.0
    delay_s: float = 1.0
    sequence_gap: float = 0.0
    clock_jump_s: float = 0.0

    def __post_init__(self) -> None:
        self._random = np.random.default_rng(0)
        if not 400 <= self.status <= 599:
            raise ValueError(f"expected a status from 400 to 599, found {self.status}")
        for name in ("rate", *_SHARES):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"expected a {name} from 0 to 1, found {getattr(self, name)}")
        if not self.delay_s >= 0.0:
            raise ValueError(f"expected a delay_s of 0 or more, found {self.delay_s}")

    def replace(self, changes: dict[str, Any]) -> None:
        """Take new settings, the others at their defaults.

        Raises
        ------
        ValueError
            If a setting is unknown or out of range.
        """
        names = {field.name for field in fields(self)}
        if unknown := sorted(set(changes) - names):
            raise ValueError(f"unknown faults {unknown}; known are {sorted(names)}")
        wanted = Faults(**changes)
        for name in names:
            setattr(self, name, getattr(wanted, name))

    @property
    def disturbs(self) -> bool:
        """Whether stream messages come otherwise than they were sent."""
        return bool(self.clock_jump_s) or any(getattr(self, name) for name in _SHARES)

    def strikes(self) -> bool:
        """Decide whether the request at hand is refused."""
        if self.next_requests > 0:
            self.next_requests -= 1
            return True
        return bool(self._random.random() < self.rate)

    def response(self) -> web.Response:
        """Refuse a request the way the exchange does."""
        if self.status >= 500:
            # The proxy in front of the exchange answers, in HTML.
            text = (
                f"<html><body><h1>{self.status} {HTTPStatus(self.status).phrase}</h1></body></html>"
            )
            return web.Response(text=text, status=self.status, content_type="text/html")
        code, message = _MESSAGES.get(self.status, _OTHER)
        headers = {"Retry-After": str(self.retry_after)} if self.status in (418, 429) else None
        return web.json_response(
            {"code": code, "msg": message}, status=self.status, headers=headers
        )


def middleware(faults: Faults) -> Any:
    """Return the aiohttp middleware that refuses requests; the control endpoints are exempt."""

    @web.middleware
    async def refuse(request: web.Request, handler: Handler) -> web.StreamResponse:
        is_control = request.path.startswith("/simulator/")
        is_stream = request.headers.get("Upgrade", "").lower() == "websocket"
        if not is_control and not is_stream and faults.strikes():
            return faults.response()
        return await handler(request)

    return refuse
