"""Sign-in: a name, a password and a code, a bounded number of guesses, and an audit record of each sign-in."""

from datetime import UTC, datetime
from typing import Any

import structlog
from django import forms
from django.contrib.auth.models import User
from django.contrib.auth.signals import user_logged_in, user_login_failed
from django.contrib.sessions.models import Session
from django.core.exceptions import ValidationError
from django.dispatch import receiver
from django.http import HttpRequest
from unfold.forms import AuthenticationForm
from unfold.widgets import UnfoldAdminTextInputWidget

from core.audit import audit_record
from easel.portal.guesses import WINDOW_SECONDS, Guesser
from easel.portal.second_factor import second_factor_holds, second_factor_of, second_factor_use

log = structlog.get_logger()
WITH_FACTOR = "second_factor"  # in the session of a user who has one


class SignInForm(AuthenticationForm):
    """Refuses a browser after too many wrong guesses, and a password without the code of the user's second factor."""

    code = forms.CharField(
        required=False,
        max_length=40,
        label="Code",
        help_text="Of your authenticator, or a recovery code. Leave it empty if you have none yet.",
        widget=UnfoldAdminTextInputWidget(attrs={"autocomplete": "one-time-code", "inputmode": "text"}),
    )

    def clean(self) -> dict[str, Any]:
        now, code = datetime.now(UTC), self.cleaned_data.get("code", "")
        name = self.cleaned_data.get("username", "")
        guesser = Guesser(self.request, name)
        is_refused = guesser.is_refused()
        if not is_refused and guesser.needs_code() and not _has_code(name, code, now=now):
            is_refused = True
            guesser.failed()  # a code may be guessed at, too
        if is_refused:
            minutes = WINDOW_SECONDS // 60
            raise ValidationError(f"Too many wrong passwords: wait {minutes} minutes.", code="too_many")
        cleaned: dict[str, Any] = super().clean()
        user = self.get_user()
        # The same words as for a wrong password, which a guesser must not learn to be right.
        if user is not None and second_factor_of(user) and not second_factor_use(user, code, now=now):
            guesser.failed()
            log.warning("sign_in_failed", username=name[:150], reason="code")
            raise self.get_invalid_login_error()
        return cleaned


def _has_code(name: str, code: str, *, now: datetime) -> bool:
    user = User.objects.filter(username=name).first()
    return user is not None and second_factor_holds(user, code, now=now)


@receiver(user_login_failed)
def _failed(credentials: dict[str, Any], request: HttpRequest | None = None, **_signal: Any) -> None:
    username = str(credentials.get("username", ""))
    log.warning("sign_in_failed", username=username[:150])
    if request is not None:
        Guesser(request, username).failed()


@receiver(user_logged_in)
def _signed_in(request: HttpRequest, user: User, **_signal: Any) -> None:
    now = datetime.now(UTC)
    name = user.get_username()
    audit_record(actor=f"operator:{name}", action="operator.sign_in", subject=name, now=now)
    Session.objects.filter(expire_date__lt=now).delete()
    request.session[WITH_FACTOR] = second_factor_of(user) is not None
    Guesser(request, name).succeeded()
