"""What is configured and read at every request: kept by each process until any of it changes.

Every change of a configured table raises one revision, by a trigger and so in the transaction of the change. A request
looks at the revision once, when it begins: a revoked key, a lower limit or a moved route holds from its commit on,
everywhere, and a request reads one row instead of ten.
"""

import threading
from collections.abc import Callable
from contextvars import ContextVar
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from tenants.models import Configuration

P = ParamSpec("P")
R = TypeVar("R")
_KEPT_MAX = 100_000

_as_of: ContextVar[int | None] = ContextVar("configuration", default=None)
_lock = threading.Lock()
_revision = -1
_kept: dict[Any, Any] = {}


def configuration_begin() -> None:
    """From here to the end of this context, what is kept of the revision in force is good enough."""
    _as_of.set(Configuration.objects.values_list("revision", flat=True).get())


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
