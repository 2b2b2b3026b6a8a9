"""Tables that every room uses: the configuration's revision, idempotent requests and the audit log."""

import uuid

from django.db import models


class Configuration(models.Model):
    """One row: how often anything that requests are answered by was changed. Raised by triggers alone."""

    revision = models.BigIntegerField()


class AuditEvent(models.Model):
    """Something that somebody did to the platform or to a tenant; append-only, by a trigger (migration `0002`)."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    recorded_at = models.DateTimeField(db_index=True)
    actor = models.CharField(max_length=200, help_text="`operator:ann`, `command:root`, `key:<key_id>`, `platform`.")
    action = models.CharField(max_length=60, help_text="`tenant.suspend`, `rollout.roll_back`, …")
    tenant = models.ForeignKey("tenants.Tenant", on_delete=models.PROTECT, null=True, blank=True, related_name="+")
    subject = models.CharField(max_length=200, help_text="What it was done to.")
    details = models.JSONField(default=dict, blank=True)

    class Meta:
        indexes = [models.Index(fields=["tenant", "-recorded_at"], name="audit_by_tenant")]

    def __str__(self) -> str:
        return f"{self.action} {self.subject}"


class IdempotentRequest(models.Model):
    """A POST that carried an `Idempotency-Key`, and the thing it made; committed together with that thing."""

    tenant = models.ForeignKey("tenants.Tenant", on_delete=models.CASCADE)
    endpoint = models.CharField(max_length=100)
    key = models.CharField(max_length=255)
    fingerprint = models.BinaryField(max_length=32, help_text="SHA-256 of the request's body.")
    resource_id = models.UUIDField(null=True)
    created_at = models.DateTimeField(db_index=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["tenant", "endpoint", "key"], name="idempotency_key_unique"),
        ]
