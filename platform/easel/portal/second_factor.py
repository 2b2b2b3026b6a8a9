"""Second factors: an authenticator's codes (RFC 6238), each good once, and recovery codes, each good once."""

import base64
import hashlib
import hmac
import secrets
from datetime import datetime

from cryptography.hazmat.primitives.hashes import SHA1
from cryptography.hazmat.primitives.twofactor.totp import TOTP
from django.conf import settings
from django.contrib.auth import SESSION_KEY
from django.contrib.auth.models import User
from django.contrib.sessions.models import Session
from django.db import transaction

from core.audit import audit_record
from easel.actions.roles import OperatorNotFound
from easel.portal.models import SecondFactor

STEP_SECONDS = 30
DIGITS = 6
STEPS_AROUND = 1  # a clock may be wrong by half a minute
RECOVERY_CODES = 10
_ALPHABET = "23456789ABCDEFGHJKLMNPQRSTUVWXYZ"  # without what is read as something else


def second_factor_of(user: User) -> SecondFactor | None:
    """Return a user's factor in use."""
    return SecondFactor.objects.filter(user=user).exclude(confirmed_at=None).first()


def second_factor_begin(user: User, *, now: datetime) -> SecondFactor:
    """Return the factor that a user is about to confirm: the same one at each look, until it is confirmed."""
    factor, _ = SecondFactor.objects.get_or_create(
        user=user, defaults={"seed": secrets.token_bytes(32), "created_at": now}
    )
    return factor


@transaction.atomic
def second_factor_confirm(user: User, code: str, *, now: datetime) -> list[str] | None:
    """Put a factor in use by a first code; return its recovery codes, to be shown once, or None for a wrong code."""
    factor = SecondFactor.objects.select_for_update().filter(user=user, confirmed_at=None).first()
    step = None if factor is None else _step_of(factor, code, now=now)
    if factor is None or step is None:
        return None
    codes = ["".join(secrets.choice(_ALPHABET) for _ in range(12)) for _ in range(RECOVERY_CODES)]
    factor.recovery_hashes = [_hash(one) for one in codes]
    factor.last_step, factor.confirmed_at = step, now
    factor.save()
    name = user.get_username()
    audit_record(actor=f"operator:{name}", action="operator.second_factor", subject=name, now=now)
    return [f"{one[:4]}-{one[4:8]}-{one[8:]}" for one in codes]


@transaction.atomic
def second_factor_use(user: User, code: str, *, now: datetime) -> bool:
    """Use a code of a user's factor up; False for a wrong one, and for one that was used."""
    factor = SecondFactor.objects.select_for_update().filter(user=user).exclude(confirmed_at=None).first()
    if factor is None:
        return False
    if (step := _step_of(factor, code, now=now)) is not None:
        factor.last_step = step
    elif (hashed := _hash(code)) in factor.recovery_hashes:
        factor.recovery_hashes.remove(hashed)
    else:
        return False
    factor.save()
    return True


def second_factor_holds(user: User, code: str, *, now: datetime) -> bool:
    """Return true if a code is good, without using it up."""
    factor = second_factor_of(user)
    return factor is not None and (_step_of(factor, code, now=now) is not None or _hash(code) in factor.recovery_hashes)


@transaction.atomic
def second_factor_remove(*, name: str) -> None:
    """Let a user make a factor anew at the next sign-in, and end the user's sessions. Raises `OperatorNotFound`."""
    user = User.objects.filter(username=name).first()
    if user is None:
        raise OperatorNotFound
    SecondFactor.objects.filter(user=user).delete()
    mine = [row.pk for row in Session.objects.all() if row.get_decoded().get(SESSION_KEY) == str(user.pk)]
    Session.objects.filter(pk__in=mine).delete()


def secret_of(factor: SecondFactor) -> str:
    """Return the secret as authenticators take it."""
    return base64.b32encode(_key(factor)).decode()


def picture_of(factor: SecondFactor) -> str:
    """Return a QR code of the secret, as the address of an SVG that is made here."""
    from reportlab.graphics import renderSVG  # slow to import, for one page
    from reportlab.graphics.barcode.qr import QrCodeWidget
    from reportlab.graphics.shapes import Drawing

    uri = _totp(factor).get_provisioning_uri(factor.user.get_username(), settings.EASEL.provider_name)
    code = QrCodeWidget(uri, barWidth=220, barHeight=220)
    canvas = Drawing(220, 220)
    canvas.add(code)
    svg = renderSVG.drawToString(canvas)
    return "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode()


def code_at(factor: SecondFactor, *, now: datetime) -> str:
    """Return the code that an authenticator shows at a time."""
    return _totp(factor).generate(int(now.timestamp())).decode()


def _step_of(factor: SecondFactor, code: str, *, now: datetime) -> int | None:
    """Return the step whose code this is, if it is near and later than the last one that was used."""
    given, totp = code.replace(" ", "").encode(), _totp(factor)
    here = int(now.timestamp()) // STEP_SECONDS
    found = None
    for step in range(here - STEPS_AROUND, here + STEPS_AROUND + 1):
        if hmac.compare_digest(totp.generate(step * STEP_SECONDS), given) and step > factor.last_step:
            found = step
    return found


def _totp(factor: SecondFactor) -> TOTP:
    return TOTP(_key(factor), DIGITS, SHA1(), STEP_SECONDS, enforce_key_length=False)  # noqa: S303 - as RFC 6238 has it


def _key(factor: SecondFactor) -> bytes:
    key = settings.EASEL.secret_key.encode()
    return hmac.digest(key, b"easel portal second factor\0" + bytes(factor.seed), hashlib.sha256)[:20]


def _hash(code: str) -> str:
    """Return what is stored of a recovery code, which has 60 random bits: no slow hash is needed."""
    plain = code.replace("-", "").replace(" ", "").upper()
    return hmac.new(settings.EASEL.secret_key.encode(), b"easel recovery code\0" + plain.encode(), "sha256").hexdigest()
