"""Sign-in: a bounded number of guesses at a password, and an audit record of each sign-in."""

from datetime import UTC, datetime
from typing import Any

import structlog
from django.contrib.auth.models import AbstractBaseUser
from django.contrib.auth.signals import user_logged_in, user_login_failed
from django.contrib.sessions.models import Session
from django.core.exceptions import ValidationError
from django.dispatch import receiver
from django.http import HttpRequest
from redis.exceptions import RedisError
from unfold.forms import AuthenticationForm

from core.audit import audit_record
from core.redis_client import redis_fail_fast

log = structlog.get_logger()
ATTEMPTS_MAX = 10
WINDOW_SECONDS = 900


class SignInForm(AuthenticationForm):
    """Refuses a name after too many wrong passwords, even with the correct one.

    Wrong passwords are counted by name, because each name belongs to one user.
    """

    def clean(self) -> dict[str, Any]:
        if failures(self.cleaned_data.get("username", "")) >= ATTEMPTS_MAX:
            raise ValidationError(
                f"Too many wrong passwords for this name: wait {WINDOW_SECONDS // 60} minutes.", code="too_many"
            )
        cleaned: dict[str, Any] = super().clean()
        return cleaned


def failures(username: str) -> int:
    """Return the wrong passwords for a name in this window. Without Redis that is 0: nobody is locked out."""
    try:
        found: Any = redis_fail_fast().get(_key(username))
    except RedisError:
        log.warning("sign_in_unlimited", reason="redis is unavailable")
        return 0
    return int(found or 0)


@receiver(user_login_failed)
def _failed(credentials: dict[str, Any], **_signal: Any) -> None:
    username = str(credentials.get("username", ""))
    log.warning("sign_in_failed", username=username[:150])
    try:
        with redis_fail_fast().pipeline() as pipe:
            pipe.set(_key(username), 0, ex=WINDOW_SECONDS, nx=True)
            pipe.incr(_key(username))
            pipe.execute()
    except RedisError:
        log.warning("sign_in_unlimited", reason="redis is unavailable")


@receiver(user_logged_in)
def _signed_in(request: HttpRequest, user: AbstractBaseUser, **_signal: Any) -> None:
    now = datetime.now(UTC)
    name = user.get_username()
    audit_record(actor=f"operator:{name}", action="operator.sign_in", subject=name, now=now)
    Session.objects.filter(expire_date__lt=now).delete()
    try:
        redis_fail_fast().delete(_key(name))
    except RedisError:
        log.warning("sign_in_count_not_deleted", reason="redis is unavailable")


def _key(username: str) -> str:
    return f"easel-portal:sign-in:{username[:150].lower()}"
