"""Which services over HTTP answer instead of a local model, and how far each may go.

All of it is one TOML file, ``remote.toml`` beside the warehouse unless TAPEHOUSE_REMOTE names
another; without the file everything is local. `docs/guides/remote-models.md` shows one.
"""

import os
import tomllib
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    model_validator,
)

from ingest import logs
from ingest.settings import Settings


class ServicesError(RuntimeError):
    """The file of services cannot be used; the message says where it is wrong."""


def _address(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("expected an address such as http://127.0.0.1:8323")
    if parts.username or parts.password:
        raise ValueError("expected no credentials in it: name a token_variable")
    return text.rstrip("/")


_Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]+$")]


class Endpoint(BaseModel):
    """An address and the bounds of its use.

    Parameters
    ----------
    url : str
        Base address.
    token_variable : str or None
        Environment variable with the token that is sent as ``Authorization: Bearer``.
    timeout_s, deadline_s : float
        Seconds for one request, and for an answer with all its attempts.
    attempts : int
        Requests for one answer, the first included; between them a random pause that grows.
    failures_to_open : int
        Failed requests in a row that open the breaker.
    open_s : float
        Seconds for which an open breaker sends nothing.
    requests_per_day : int or None
        Requests of a UTC day, failed ones included; None is no bound.
    cost_per_request, cost_per_day : float
        In any one currency.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: Annotated[str, AfterValidator(_address)]
    token_variable: str | None = None
    timeout_s: PositiveFloat = 0.5
    deadline_s: PositiveFloat = 1.0
    attempts: PositiveInt = 3
    failures_to_open: PositiveInt = 5
    open_s: PositiveFloat = 30.0
    requests_per_day: PositiveInt | None = None
    cost_per_request: Annotated[float, Field(ge=0)] = 0.0
    cost_per_day: PositiveFloat | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.cost_per_day is not None and not self.cost_per_request:
            raise ValueError("cost_per_day needs cost_per_request")
        if self.token_variable is not None and not os.environ.get(self.token_variable):
            raise ValueError(f"the environment variable {self.token_variable} is not set")
        return self

    @property
    def host(self) -> str:
        """Host and port."""
        return urlsplit(self.url).netloc

    @property
    def headers(self) -> dict[str, str]:
        """What is sent with each request."""
        if self.token_variable is None:
            return {}
        token = os.environ[self.token_variable]
        logs.conceal(token)
        return {"Authorization": f"Bearer {token}"}

    @property
    def requests_allowed(self) -> int | None:
        """Requests that both bounds of a day allow."""
        bounds = [] if self.requests_per_day is None else [self.requests_per_day]
        if self.cost_per_day is not None:
            bounds.append(int(self.cost_per_day / self.cost_per_request + 1e-9))
        return min(bounds, default=None)


class RemoteModel(Endpoint):
    """A model behind the Open Inference Protocol.

    Parameters
    ----------
    name, version : str or None
        What the server calls it; by default as the registry does.
    rows_per_request : int
        Bars of one request; more are parted.
    tensors : {"binary", "json"}
        How numbers travel; JSON has no NaN, which some servers refuse.
    """

    name: str | None = None
    version: str | None = None
    rows_per_request: PositiveInt = 1024
    tensors: Literal["binary", "json"] = "binary"


class Classifier(Endpoint):
    """A text classifier of the shape of Cloudflare Workers AI.

    Parameters
    ----------
    scorer : str
        Name of its scores in ``raw.news_scores``.
    max_age_hours : float
        Headlines published longer ago are not asked about: no feature would see the answer.
    at_once : int
        Requests under way at a time.
    """

    scorer: _Name
    timeout_s: PositiveFloat = 5.0
    deadline_s: PositiveFloat = 15.0
    max_age_hours: PositiveFloat = 24.0
    at_once: PositiveInt = 8

    @model_validator(mode="after")
    def _is_another(self) -> Self:
        if self.scorer == "vader":
            raise ValueError("vader is the name of the local lexicon's scores: choose another")
        return self


class Services(BaseModel):
    """All services: models by their names in the registry, and one of sentiment."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    models: Mapping[_Name, RemoteModel] = {}
    sentiment: Classifier | None = None

    def require(self, names: Iterable[str]) -> None:
        """Raise ServicesError if a model is configured that is not one of `names`."""
        known = sorted(names)
        unknown = sorted(set(self.models) - set(known))
        if unknown:
            raise ServicesError(
                f"the services name {', '.join(unknown)}; active models are "
                f"{', '.join(known) or 'none'}"
            )


def load(settings: Settings) -> Services:
    """Read the file of services.

    Raises
    ------
    ServicesError
        If it is no TOML, or an entry is unknown, missing or wrong; the message names each.
    """
    path = settings.remote_file
    if not path.is_file():
        if settings.remote is not None:
            raise ServicesError(f"TAPEHOUSE_REMOTE names {path}, which does not exist")
        return Services()
    try:
        return Services.model_validate(tomllib.loads(path.read_text()))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ServicesError(f"{path} is no TOML: {error}") from error
    except ValidationError as error:
        wrong = logs.redact("; ".join(map(_told, error.errors())))
        raise ServicesError(f"{path} is wrong: {wrong}") from None


def _told(error: Mapping[str, Any]) -> str:
    place = ".".join(str(part) for part in error["loc"])
    found = "" if isinstance(error["input"], dict) else f", found {error['input']!r}"
    return f"{place}: {error['msg'].removeprefix('Value error, ')}{found}"
