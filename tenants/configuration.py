"""What is configured and read at every request: kept by each process until any of it changes.

Every change of a configured table raises one revision, by a trigger and so in the transaction of the change. What is
kept belongs to a revision. A request looks at the revision once, when it begins: a revoked key, a lower limit or a
moved route holds from its commit on, everywhere, and a request reads one row instead of ten.

A request on the hot path doesn't even read that one: it assumes that the revision which this process saw last is in
force still (`assuming`), and confirms it on the round trip that writes what it asks for (`configuration_confirm`).
Where it was wrong nothing is written, and it begins anew by reading; what it would answer otherwise is confirmed first.
"""

import threading
from collections.abc import Callable
from contextvars import ContextVar
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from tenants.models import Configuration
from tenants.round_trip import Statement, Steps

P = ParamSpec("P")
R = TypeVar("R")
_KEPT_MAX = 100_000
_REVISION = f"SELECT revision FROM {Configuration._meta.db_table}"  # noqa: S608 - of the model's name alone

_as_of: ContextVar[int | None] = ContextVar("configuration", default=None)
# Of a request that assumes its revision: not confirmed, or confirmed.
_assumed: ContextVar[bool] = ContextVar("configuration_assumed", default=False)
_confirmed: ContextVar[bool] = ContextVar("configuration_confirmed", default=False)
_lock = threading.Lock()
_revision = -1
_kept: dict[Any, Any] = {}


class ConfigurationChanged(Exception):
    """The request began by a configuration that isn't in force any more."""


def configuration_begin() -> None:
    """From here to the end of this context, what is kept of the revision in force is good enough."""
    _as_of.set(_revision if _assumed.get() and _revision >= 0 else _read())


def configuration_confirm() -> Steps[None]:
    """Raises `ConfigurationChanged` unless the revision of the request is in force; then nothing may be committed."""
    ((revision,),) = yield Statement(_REVISION, {})
    as_of = _as_of.get()
    if as_of is None:
        return
    if _assumed.get() and revision != as_of:
        raise ConfigurationChanged
    _confirmed.set(True)


def assuming(function: Callable[P, R], *, stands: Callable[[R], bool]) -> Callable[P, R]:
    """A function that assumes the revision it begins with, and is called again where it was wrong.

    Whatever it writes it writes with `configuration_confirm`, or could write again. An answer of which `stands` is true
    has nothing to do with the configuration.
    """

    @wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        assumed, confirmed = _assumed.set(True), _confirmed.set(False)
        try:
            answer = function(*args, **kwargs)
            if _confirmed.get() or stands(answer) or _as_of.get() in (None, _read()):
                return answer
        except ConfigurationChanged:
            pass
        finally:
            _assumed.reset(assumed)
            _confirmed.reset(confirmed)
        return function(*args, **kwargs)

    return wrapper


def kept(read: Callable[P, R]) -> Callable[P, R]:
    """A read of configured tables whose answer, which nobody may change, is kept for the revision of the request.

    Outside a request it is read anew each time.
    """

    @wraps(read)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        global _revision, _kept
        as_of = _as_of.get()
        if as_of is None:
            return read(*args, **kwargs)
        key = (read, args, tuple(sorted(kwargs.items())))
        with _lock:
            if as_of > _revision or len(_kept) > _KEPT_MAX:
                _revision, _kept = as_of, {}
            answers = _kept if as_of == _revision else {}  # of a request that began before the last change
        if key not in answers:
            # Read after the revision was: at worst newer than it says, never older.
            answers[key] = read(*args, **kwargs)
        answer: R = answers[key]
        return answer

    return wrapper


def _read() -> int:
    return Configuration.objects.values_list("revision", flat=True).get()
