"""Counts wrong passwords and codes, so that guessing is slow and nobody is kept out by another's guesses.

A name has ten guesses in 15 minutes from one address, an address fifty of all names. A browser in which this user
signed in before has ten of its own, whatever others do. A name that is guessed from very many addresses takes no
browser that is new to it, unless that brings a code of its second factor. The counts are in Redis, for all processes of
the API; each process counts by itself what it can't write there.
"""

import secrets
import time
from collections.abc import Sequence
from ipaddress import ip_network
from threading import Lock

import structlog
from django.conf import settings
from django.contrib.auth.models import User
from django.core import signing
from django.http import HttpRequest, HttpResponse
from redis.exceptions import RedisError

from core.redis_client import redis_fail_fast
from tenants.addresses import address_of

log = structlog.get_logger()
WINDOW_SECONDS = 900
PAIR_MAX, ADDRESS_MAX, DEVICE_MAX = 10, 50, 10
NAME_MAX = 100  # from all addresses; beyond it a browser must be known, or have a code
DEVICE_COOKIE = "easel_device"
DEVICE_SECONDS = 180 * 86_400
_SALT = "easel.portal.device"
OWN_COUNTS_MAX = 10_000
_own_counts: dict[str, tuple[int, float]] = {}  # what Redis did not take, each with its end by the monotonic clock
_own_lock = Lock()


class Guesser:
    """A try to sign in: by a name, from an address, in a browser that may be known to the name."""

    def __init__(self, request: HttpRequest, name: str) -> None:
        self._name = name[:150].lower()
        self._address = _network_of(request.META.get("REMOTE_ADDR", ""))
        self._device = _device_of(request, name)

    def is_refused(self) -> bool:
        """Return true if this browser has guessed too much, whatever it sends now."""
        return self._is_over(self._own())

    def needs_code(self) -> bool:
        """Return true if the name is guessed from so many addresses that an unknown browser must bring a code."""
        return self._device is None and self._is_over([(f"name:{self._name}", NAME_MAX)])

    def failed(self) -> None:
        """Count a wrong password or code."""
        shared = [] if self._device else [(f"name:{self._name}", NAME_MAX)]
        keys = [_key(key) for key, _ in [*self._own(), *shared]]
        try:
            with redis_fail_fast().pipeline() as pipe:
                for key in keys:
                    pipe.set(key, 0, ex=WINDOW_SECONDS, nx=True)
                    pipe.incr(key)
                pipe.execute()
        except RedisError as error:
            log.warning("sign_in_counted_here", reason=repr(error))
            _count_here(keys)

    def succeeded(self) -> None:
        """Forget the guesses of this browser; not those of its address, which may be others'."""
        key = _key(self._own()[0][0])
        _own_counts.pop(key, None)
        try:
            redis_fail_fast().delete(key)
        except RedisError:
            log.warning("sign_in_count_not_deleted", reason="redis is unavailable")

    def _own(self) -> list[tuple[str, int]]:
        if self._device:
            return [(f"device:{self._device}", DEVICE_MAX)]
        return [(f"pair:{self._name}:{self._address}", PAIR_MAX), (f"address:{self._address}", ADDRESS_MAX)]

    @staticmethod
    def _is_over(limits: Sequence[tuple[str, int]]) -> bool:
        found = _counts([_key(key) for key, _ in limits])
        return any(count >= limit for count, (_, limit) in zip(found, limits, strict=True))


def _counts(keys: list[str]) -> list[int]:
    """Return what all processes have counted in Redis and this one by itself."""
    now = time.monotonic()
    here = [count if ends > now else 0 for count, ends in (_own_counts.get(key, (0, 0.0)) for key in keys)]
    try:
        shared = redis_fail_fast().mget(keys)
    except RedisError as error:
        log.warning("sign_in_counted_here", reason=repr(error))
        return here
    return [one + int(count or 0) for one, count in zip(here, shared, strict=True)]


def _count_here(keys: list[str]) -> None:
    """Count what Redis does not take: it is unavailable, or it is full and still answers."""
    now = time.monotonic()
    with _own_lock:
        for key in keys:
            count, ends = _own_counts.pop(key, (0, 0.0))
            _own_counts[key] = (count + 1, ends) if ends > now else (1, now + WINDOW_SECONDS)
        while len(_own_counts) > OWN_COUNTS_MAX:
            del _own_counts[next(iter(_own_counts))]  # the one that was counted longest ago


def device_remember(answer: HttpResponse, user: User) -> None:
    """Let this browser's next sign-ins be counted by themselves, until the password changes."""
    value = signing.dumps([user.pk, secrets.token_hex(8), user.get_session_auth_hash()[:16]], salt=_SALT)
    answer.set_cookie(
        DEVICE_COOKIE,
        value,
        max_age=DEVICE_SECONDS,
        path=settings.PORTAL_PATH,
        secure=settings.SESSION_COOKIE_SECURE,
        httponly=True,
        samesite="Strict",
    )


def _device_of(request: HttpRequest, name: str) -> str | None:
    """Return the id of a browser in which this user signed in before, since the last change of the password."""
    try:
        pk, device, fragment = signing.loads(request.COOKIES.get(DEVICE_COOKIE, ""), salt=_SALT, max_age=DEVICE_SECONDS)
    except (signing.BadSignature, ValueError, TypeError):
        return None
    user = User.objects.filter(pk=pk, username=name).first()
    return str(device) if user is not None and user.get_session_auth_hash()[:16] == fragment else None


def _network_of(address: str) -> str:
    """Return what one client has of addresses: one of IPv4, a network of 64 bits of IPv6."""
    found = address_of(address)
    if found is None:
        return "unknown"
    return str(found if found.version == 4 else ip_network((int(found) >> 64 << 64, 64)))


def _key(key: str) -> str:
    return f"easel-portal:sign-in:{key}"
