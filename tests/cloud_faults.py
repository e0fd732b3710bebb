"""A wire to BigQuery that fails on demand: in front of the emulator, for both its protocols."""

import http.client
import json
import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

import grpc
from bigquery_emulator import Emulator

_UNLIMITED = [(f"grpc.max_{way}_message_length", -1) for way in ("receive", "send")]
_REASONS = {429: "rateLimitExceeded", 503: "backendError"}


@dataclass
class Wire:
    """Where the wire begins, and what it does.

    ``refuse`` maps the end of a gRPC method's name, or a part of a REST request such as
    ``POST /upload``, to the codes that its next requests get instead of an answer; ``lose`` to how
    many answers are lost on the way back; ``hold`` to how many more requests pass and an event:
    that of the next is set, and the request waits for ever. ``jobs`` are the configurations of the
    jobs that were asked for, ``queries`` what was asked without one.
    """

    rest: str = ""
    grpc: str = ""
    refuse: dict[str, list[Any]] = field(default_factory=dict)
    lose: dict[str, int] = field(default_factory=dict)
    hold: dict[str, tuple[int, threading.Event]] = field(default_factory=dict)
    jobs: list[dict[str, Any]] = field(default_factory=list)
    queries: list[dict[str, Any]] = field(default_factory=list)

    @property
    def environment(self) -> dict[str, str]:
        return {"BIGQUERY_EMULATOR_HOST": self.rest, "BIGQUERY_STORAGE_EMULATOR_HOST": self.grpc}

    def refusal(self, name: str) -> Any:
        for part, codes in self.refuse.items():
            if part in name and codes:
                return codes.pop(0)
        for part, (passing, event) in list(self.hold.items()):
            if part in name and passing:
                self.hold[part] = (passing - 1, event)
            elif part in name:
                event.set()
                threading.Event().wait(10)
        return None

    def loses(self, name: str) -> bool:
        for part, count in self.lose.items():
            if part in name and count:
                self.lose[part] = count - 1
                return True
        return False


class _Storage(grpc.GenericRpcHandler):  # type: ignore[misc]
    def __init__(self, wire: Wire, channel: grpc.Channel) -> None:
        self._wire, self._channel = wire, channel

    def service(self, details: Any) -> Any:
        if details.method.endswith("AppendRows"):
            return grpc.stream_stream_rpc_method_handler(self._forwarded(details, "stream_stream"))
        if details.method.endswith("ReadRows"):
            return grpc.unary_stream_rpc_method_handler(self._forwarded(details, "unary_stream"))

        def one(request: bytes, context: Any) -> bytes:
            (answer,) = self._forwarded(details, "unary_unary")(request, context)
            return bytes(answer)

        return grpc.unary_unary_rpc_method_handler(one)

    def _forwarded(self, details: Any, arity: str) -> Any:
        routing = [pair for pair in details.invocation_metadata if pair[0].startswith("x-goog-r")]

        def forward(request: Any, context: Any) -> Iterator[bytes]:
            if code := self._wire.refusal(details.method):
                context.abort(code, "a fault of the test")
            answers = getattr(self._channel, arity)(details.method)(request, metadata=routing)
            for answer in [answers] if arity == "unary_unary" else answers:
                if self._wire.loses(details.method):
                    if arity == "unary_stream":
                        # An emulator whose stream is left does not end.
                        deque(answers, maxlen=0)
                    context.abort(grpc.StatusCode.UNAVAILABLE, "the answer was lost")
                yield answer

        return forward


def _rest(wire: Wire, address: str) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def _forward(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            request = f"{self.command} {self.path}"
            if code := wire.refusal(request):
                self._refuse(code)
                return
            if request.startswith("POST /bigquery"):
                kept = {"jobs": wire.jobs, "queries": wire.queries}
                if (last := urlsplit(self.path).path.rpartition("/")[2]) in kept:
                    kept[last].append(json.loads(body))
            headers = {k: v for k, v in self.headers.items() if k.lower() != "accept-encoding"}
            with closing(http.client.HTTPConnection(address)) as connection:
                connection.request(self.command, self.path, body, headers)
                answer = connection.getresponse()
                content = answer.read()
            if wire.loses(request):
                self._refuse(503)
                return
            # Whoever asked may have been killed.
            with suppress(BrokenPipeError, ConnectionResetError):
                self._answer(answer.status, answer.getheaders(), content)

        def _refuse(self, code: int) -> None:
            reason = {"reason": _REASONS[code], "message": "a fault of the test"}
            error = {"error": {"code": code, "message": "a fault", "errors": [reason]}}
            self._answer(code, [("Content-Type", "application/json")], json.dumps(error).encode())

        def _answer(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
            self.send_response(status)
            for name, value in headers:
                if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = _forward  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    return Handler


@contextmanager
def faulty(emulator: Emulator) -> Iterator[Wire]:
    """Put a wire in front of an emulator."""
    wire = Wire()
    channel = grpc.insecure_channel(emulator.grpc, options=_UNLIMITED)
    storage = grpc.server(ThreadPoolExecutor(8), options=_UNLIMITED)
    storage.add_generic_rpc_handlers((_Storage(wire, channel),))
    wire.grpc = f"127.0.0.1:{storage.add_insecure_port('127.0.0.1:0')}"
    storage.start()
    rest = ThreadingHTTPServer(("127.0.0.1", 0), _rest(wire, urlsplit(emulator.rest).netloc))
    rest.daemon_threads = True
    wire.rest = f"http://127.0.0.1:{rest.server_port}"
    thread = threading.Thread(target=rest.serve_forever)
    thread.start()
    try:
        yield wire
    finally:
        rest.shutdown()
        thread.join()
        rest.server_close()
        storage.stop(None).wait()
        channel.close()
