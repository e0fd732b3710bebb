"""Sentiment by a text classifier over HTTP, of the shape of Cloudflare Workers AI."""

import asyncio
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import aiohttp

from ingest import health, logs
from ingest.service_settings import Classifier
from ingest.services import MalformedError, Service, UnavailableError

_SIGNS = {"POSITIVE": 1.0, "NEGATIVE": -1.0, "NEUTRAL": 0.0}
_log = logs.logger("classifier")


@dataclass(frozen=True)
class Classified:
    """What a classifier said of some texts.

    Parameters
    ----------
    scores : tuple
        For each text P(positive) - P(negative), -1 to 1; None where it gave no answer.
    failures : Counter
        How many gave none, by reason.
    """

    scores: tuple[float | None, ...]
    failures: Counter[str]


async def classify(service: Service, classifier: Classifier, texts: Sequence[str]) -> Classified:
    """Ask about each text, `at_once` at a time.

    Parameters
    ----------
    service : Service
        The classifier's endpoint.
    classifier : Classifier
        Its settings.
    texts : sequence of str
        Each is a request of its own.

    Returns
    -------
    Classified
        In the order of the texts.
    """
    turn = asyncio.Semaphore(classifier.at_once)
    failures: Counter[str] = Counter()

    async def ask(text: str) -> float | None:
        body = json.dumps({"text": text}).encode()
        headers = {"Content-Type": "application/json"}
        async with turn:
            try:
                return await service.post(session, "", body, headers, _score)
            except UnavailableError as error:
                if not failures[error.reason]:
                    _log.warning("fallback", reason=error.reason, error=str(error))
                failures[error.reason] += 1
                health.FALLBACKS.labels(service.name, error.reason).inc()
                return None

    async with aiohttp.ClientSession() as session:
        scores = await asyncio.gather(*map(ask, texts))
    return Classified(tuple(scores), failures)


def _score(body: bytes, _headers: Mapping[str, str]) -> float:
    try:
        answer = json.loads(body)
        if answer["success"] is not True:
            raise MalformedError(f"the classifier refused: {logs.redact(answer.get('errors'))}")
        chances = {entry["label"].upper(): float(entry["score"]) for entry in answer["result"]}
        score = sum(_SIGNS[label] * chance for label, chance in chances.items())
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise MalformedError(f"no classification: {logs.redact(body[:200])}") from error
    if not chances or not all(0.0 <= chance <= 1.0 for chance in chances.values()):
        raise MalformedError(f"no chances between 0 and 1: {logs.redact(body[:200])}")
    return max(-1.0, min(1.0, score))
