"""Asks a classifier that speaks OpenAI's moderation API about prompts and images, for the tenants whose policy says so.

The call leaves the machine and is slow, so nothing waits for it in a transaction or on an admission thread: a plan
whose prompt has no verdict yet raises `PromptUnjudged`, and whoever wanted the plan gets the verdict and plans again.
Verdicts are remembered for a minute. Images are judged between a worker's success and its record
(`processes/image_judging.py`).

Without a verdict, after two tries, `EASEL_MODERATION_FAILS` decides: closed refuses, open lets pass.
"""

import base64
import hashlib
import json
import math
import threading
import time
from collections import OrderedDict
from typing import Any

import httpx
import structlog
from django.conf import settings
from prometheus_client import Counter

from core.errors import DomainError
from easel.jobs.errors import PromptBlocked
from tenants.models import Moderation, Tenant

JUDGED = Counter("easel_moderation_verdicts_total", "Verdicts of the classifier.", ["subject", "verdict"])
TIMEOUT_SECONDS = 3.0
ANSWER_SECONDS, ANSWER_BYTES_MAX = 5.0, 2**20  # of the whole answer, however it trickles
TRIES = 2
_REMEMBERED_SECONDS, _REMEMBERED_MAX = 60.0, 10_000

log = structlog.get_logger()
_client = httpx.Client(timeout=TIMEOUT_SECONDS, follow_redirects=False)
_verdicts: OrderedDict[bytes, tuple[float, bool]] = OrderedDict()
_verdicts_lock = threading.Lock()


class ModerationUnavailable(DomainError, code="moderation_unavailable", http_status=503, retryable=True):
    """The classifier of the content policy can't be reached, so nothing is generated. Nothing was charged.

    Send the request again in a moment. If it goes on, tell the operator.
    """


class PromptUnjudged(DomainError, code="moderation_pending", http_status=503, retryable=True):
    """The content policy has not judged the prompt yet. Nothing was charged.

    Send the request again.
    """

    def __init__(self, prompt: str, *, tenant: Tenant) -> None:
        super().__init__()
        self.prompt, self.tenant = prompt, tenant


def prompt_moderate(prompt: str, *, tenant: Tenant) -> None:
    """Raise `PromptBlocked` if the classifier refuses the prompt, `PromptUnjudged` if it hasn't been asked of late."""
    if tenant.moderation == Moderation.OFF:
        return
    with _verdicts_lock:
        until, refused = _verdicts.get(_key(prompt, tenant), (0.0, False))
    if until < time.monotonic():
        raise PromptUnjudged(prompt, tenant=tenant)
    if refused:
        log.info("prompt_blocked", tenant=tenant.slug, reason="moderation")
        raise PromptBlocked(param="prompt")


def verdict_fetch(unjudged: PromptUnjudged) -> None:
    """Get and remember the verdict on a prompt; slow. Raises `ModerationUnavailable`."""
    refused = refuses([{"type": "text", "text": unjudged.prompt}], tenant=unjudged.tenant, subject="prompt")
    with _verdicts_lock:
        _verdicts[_key(unjudged.prompt, unjudged.tenant)] = (time.monotonic() + _REMEMBERED_SECONDS, refused)
        if len(_verdicts) > _REMEMBERED_MAX:
            _verdicts.popitem(last=False)


def image_refused(content: bytes, *, output_format: str, prompt: str, tenant: Tenant) -> bool:
    """Return True if the classifier refuses an image, seen with its prompt; slow. Raises `ModerationUnavailable`."""
    url = f"data:image/{output_format};base64,{base64.b64encode(content).decode()}"
    parts: list[dict[str, Any]] = [{"type": "text", "text": prompt}, {"type": "image_url", "image_url": {"url": url}}]
    return refuses(parts, tenant=tenant, subject="image")


def refuses(parts: list[dict[str, Any]], *, tenant: Tenant, subject: str) -> bool:
    """Ask the classifier about what belongs together. Raises `ModerationUnavailable` if it must, and can't, answer."""
    config = settings.EASEL
    problem = "EASEL_MODERATION_URL is not set"
    for _ in range(TRIES if config.moderation_url else 0):
        try:
            with _client.stream(
                "POST",
                f"{config.moderation_url}/moderations",
                headers={"Authorization": f"Bearer {config.moderation_key}"} if config.moderation_key else {},
                json={"model": config.moderation_model, "input": parts},
            ) as answer:
                answer.raise_for_status()
                results = _results(json.loads(_read(answer)))
            refused = any(_is_refused(result, tenant.moderation_categories) for result in results)
        except (httpx.HTTPError, ValueError, TypeError, LookupError, RecursionError) as error:
            problem = repr(error)
            continue
        JUDGED.labels(subject, "refused" if refused else "passed").inc()
        return refused
    JUDGED.labels(subject, "unavailable").inc()
    log.warning("moderation_unavailable", tenant=tenant.slug, subject=subject, error=problem[:300])
    if config.moderation_fails_open:
        return False
    raise ModerationUnavailable


def _read(answer: httpx.Response) -> bytes:
    """Return the body. Raises `ValueError` for one that is too long or takes too long."""
    body, until = bytearray(), time.monotonic() + ANSWER_SECONDS
    for part in answer.iter_bytes():
        body += part
        if len(body) > ANSWER_BYTES_MAX or time.monotonic() > until:
            raise ValueError(f"the answer is over {ANSWER_BYTES_MAX} bytes or {ANSWER_SECONDS:.0f} s")
    return bytes(body)


def _results(answer: Any) -> list[dict[str, Any]]:
    results = answer["results"]
    if not isinstance(results, list) or not results:
        raise ValueError("the answer has no results")
    return results


def _is_refused(result: dict[str, Any], categories: list[str]) -> bool:
    """Return the verdict of a result by a tenant's categories: `violence` as flagged, `violence=0.4` by its score.

    A category that the answer lacks can't be judged, and raises `KeyError`.
    """
    if not categories:
        return _flag(result["flagged"])
    found = False
    for category in categories:
        name, _, threshold = category.partition("=")
        if threshold:
            score = float(result["category_scores"][name])
            if math.isnan(score):  # it is below every threshold, and would pass
                raise ValueError(f"the score of {name} is no number")
            found |= score >= float(threshold)
        else:
            found |= _flag(result["categories"][name])
    return found


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{value!r} is no verdict")
    return value


def _key(prompt: str, tenant: Tenant) -> bytes:
    policy = ",".join(tenant.moderation_categories)
    return hashlib.sha256(f"{tenant.pk}\0{policy}\0{prompt}".encode()).digest()
