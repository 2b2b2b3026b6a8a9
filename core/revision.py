"""Caches reads of configured tables in each process, until any configured table changes.

A trigger raises one revision in the transaction of each change of a configured table. A cached answer belongs to a
revision. A request reads the revision once, when it begins: a revoked key, a lower limit or a moved route takes effect
with its commit, in every process, and a request reads one row instead of ten.

A request on the hot path does not read even that row: it optimistically assumes the revision that this process saw last
(`optimistic`), and validates it on the round trip that writes its job (`revision_validate`). If the revision has moved,
nothing is written and the request runs again; an answer that wrote nothing is validated before it is given.
"""

import threading
from collections.abc import Callable
from contextvars import ContextVar
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from core.models import Configuration
from core.pipeline import PipelinedQuery, Query

P = ParamSpec("P")
R = TypeVar("R")
_ANSWERS_MAX = 100_000
_REVISION = f"SELECT revision FROM {Configuration._meta.db_table}"  # noqa: S608 - of nothing but the model's name

_request_revision: ContextVar[int | None] = ContextVar("request_revision", default=None)
_is_optimistic: ContextVar[bool] = ContextVar("is_optimistic", default=False)
_is_validated: ContextVar[bool] = ContextVar("is_validated", default=False)
_lock = threading.Lock()
_revision = -1
_answers: dict[Any, Any] = {}
_UNREAD = object()


class RevisionChanged(Exception):
    """The request began with a revision that is no longer in force."""


def revision_begin() -> None:
    """Let this context use cached answers of the revision in force, or of the assumed one in an `optimistic` call."""
    _request_revision.set(_revision if _is_optimistic.get() and _revision >= 0 else _read())


def revision_validate() -> PipelinedQuery[None]:
    """Raise `RevisionChanged` unless the request's revision is in force; then nothing may be committed."""
    ((revision,),) = yield Query(_REVISION, {})
    expected = _request_revision.get()
    if expected is None:
        return
    if _is_optimistic.get() and revision != expected:
        raise RevisionChanged
    _is_validated.set(True)


def optimistic(function: Callable[P, R], *, is_final: Callable[[R], bool]) -> Callable[P, R]:
    """Wrap `function` so that it assumes the cached revision, and runs again where that was wrong.

    The function must validate the revision with what it writes, or be repeatable. An answer for which `is_final` is
    true does not depend on the configuration and is given unvalidated.
    """

    @wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        optimistic_before, validated_before = _is_optimistic.set(True), _is_validated.set(False)
        try:
            answer = function(*args, **kwargs)
            if _is_validated.get() or is_final(answer) or _request_revision.get() in (None, _read()):
                return answer
        except RevisionChanged:
            pass
        finally:
            _is_optimistic.reset(optimistic_before)
            _is_validated.reset(validated_before)
        return function(*args, **kwargs)

    return wrapper


def cached_by_revision(read: Callable[P, R]) -> Callable[P, R]:
    """Cache a read of configured tables for the request's revision. Nobody may change the answer.

    Outside a request nothing is cached.
    """

    @wraps(read)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        global _revision, _answers
        revision = _request_revision.get()
        if revision is None:
            return read(*args, **kwargs)
        key = (read, args, tuple(sorted(kwargs.items())))
        with _lock:
            if revision > _revision or len(_answers) > _ANSWERS_MAX:
                _revision, _answers = revision, {}
            answers = _answers if revision == _revision else {}  # a request that began before the last change
        answer: R = answers.get(key, _UNREAD)  # one look-up: a key with a model's row takes long to hash
        if answer is _UNREAD:
            # The read comes after the revision was read, so it is at worst newer than the revision, never older.
            answer = answers[key] = read(*args, **kwargs)
        return answer

    return wrapper


def _read() -> int:
    return Configuration.objects.values_list("revision", flat=True).get()
