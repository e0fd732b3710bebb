"""Structured logs on standard error, as text or as JSON, which never carry secrets."""

import logging
import os
import re
import sys
from collections.abc import Mapping, MutableMapping
from datetime import datetime
from typing import Any, Literal

import structlog

Format = Literal["console", "json"]
Level = Literal["debug", "info", "warning", "error"]

REDACTED = "[redacted]"
_NAME = (
    r"(?:token|secret|passwords?|passwd|authorization|api[_-]?key|access[_-]?key|private[_-]?key"
    r"|signature|credentials?|cookie|listen[_-]?key|webhook)"
)
_SECRET_NAME = re.compile(_NAME, re.IGNORECASE)
_IN_TEXT = (
    # "apiKey": "…", token=…, X-Signature: …
    (re.compile(rf"([\w-]*{_NAME}[\w-]*[\"']?\s*[:=]\s*[\"']?)(?!(?:bearer|basic)\s)[^\s\"',;&}})]+",
                re.IGNORECASE), rf"\1{REDACTED}"),
    (re.compile(r"\b(bearer|basic)\s+[\w.~+/=-]{6,}", re.IGNORECASE), rf"\1 {REDACTED}"),
    (re.compile(r"(://)[^/\s@]+@"), rf"\1{REDACTED}@"),
)  # fmt: skip
_SHORTEST_SECRET = 6
_concealed: set[str] = set()


def conceal(secret: str) -> None:
    """Hide a value in all logs from now on."""
    _concealed.add(secret)


def redact(value: Any, *, name: str = "") -> Any:
    """Return a value without secrets, for a log.

    Hidden are the values of names such as token or api_key, at any depth and within text, the
    values of environment variables with such names, what was concealed, credentials in
    addresses, and what follows ``Bearer``. What is neither text, number, list nor mapping becomes
    its `repr`.
    """
    if name and _SECRET_NAME.search(name) and value is not None:
        return REDACTED
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Mapping):
        return {str(key): redact(entry, name=str(key)) for key, entry in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [redact(entry) for entry in value]
    if isinstance(value, bytes | bytearray):
        value = bytes(value).decode(errors="replace")
    return _redact_text(value if isinstance(value, str) else repr(value))


def _redact_text(text: str) -> str:
    # Another thread may take a variable away meanwhile.
    named = {os.environ.get(name, "") for name in list(os.environ) if _SECRET_NAME.search(name)}
    for secret in named | _concealed:
        if len(secret) >= _SHORTEST_SECRET:
            text = text.replace(secret, REDACTED)
    for pattern, replacement in _IN_TEXT:
        text = pattern.sub(replacement, text)
    return text


def _without_secrets(
    _logger: Any, _method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    own = {key: value for key, value in event.items() if key.startswith("_")}
    return own | {key: redact(value, name=key) for key, value in event.items() if key not in own}


def logger(name: str) -> Any:
    """Return a logger; its methods take an event's name and fields: ``info("gap", symbol=…)``.

    Until `configure` is called it tells warnings and errors only.
    """
    return structlog.get_logger(part=name)


# Exceptions become text before secrets are sought in it.
_COMMON: list[Any] = [
    structlog.processors.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    structlog.processors.format_exc_info,
    _without_secrets,
]


def configure(form: Format = "console", level: Level = "warning") -> None:
    """Choose the form and the lowest level of all logs, those of libraries included."""
    threshold = logging.getLevelNamesMapping()[level.upper()]
    renderer = _renderer(form)
    _configure(renderer, threshold)
    own = structlog.stdlib.ProcessorFormatter.remove_processors_meta
    handler = logging.StreamHandler()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name],
            processors=[own, *_COMMON, renderer],
        )
    )
    logging.basicConfig(handlers=[handler], level=max(threshold, logging.WARNING), force=True)


def _renderer(form: Format) -> Any:
    if form == "json":
        return structlog.processors.JSONRenderer(ensure_ascii=False)
    return structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), pad_event_to=0)


def _configure(renderer: Any, threshold: int) -> None:
    structlog.configure(
        processors=[*_COMMON, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=lambda *_: structlog.WriteLogger(sys.stderr),
    )


_configure(_renderer("console"), logging.WARNING)
