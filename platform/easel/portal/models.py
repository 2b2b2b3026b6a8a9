"""The second factor of a user of the portal."""

from typing import ClassVar

from django.contrib.auth.models import User
from django.contrib.postgres.fields import ArrayField
from django.db import models


class SecondFactor(models.Model):
    """An authenticator (RFC 6238) of a user, and the codes for the day on which it is lost.

    `seed` makes the secret with `EASEL_SECRET_KEY`, so that a copy of the database gives nobody a code.
    """

    user = models.OneToOneField(User, models.CASCADE, primary_key=True, related_name="second_factor")
    seed = models.BinaryField(max_length=32)
    last_step = models.BigIntegerField(default=0, db_default=0, help_text="The 30 s whose code was used last.")
    recovery_hashes = ArrayField(models.TextField(), default=list, help_text="Of the recovery codes that are left.")
    created_at = models.DateTimeField()
    confirmed_at = models.DateTimeField(
        null=True, help_text="When a first code was entered; without it none is asked for."
    )

    class Meta:
        constraints: ClassVar = [
            models.CheckConstraint(condition=models.Q(last_step__gte=0), name="second_factor_step_is_a_time")
        ]

    def __str__(self) -> str:
        return self.user.get_username()
