"""Tables that every room uses: the configuration's revision, locks, idempotent requests and the audit log."""

import uuid

from django.db import models


class Configuration(models.Model):
    """One row: a counter that triggers raise at every change of a configured table."""

    revision = models.BigIntegerField()


class Lock(models.Model):
    """A name that one transaction at a time holds (`core.locks`)."""

    name = models.CharField(primary_key=True, max_length=500)


class AuditEvent(models.Model):
    """An action on the platform or on a tenant. Append-only: a trigger in `sql/triggers.sql` refuses changes."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    recorded_at = models.DateTimeField(db_index=True)
    actor = models.CharField(
        max_length=200, help_text="For example `operator:ann`, `command:root`, `key:<key_id>` or `platform`."
    )
    action = models.CharField(max_length=60, help_text="For example `tenant.suspend` or `rollout.roll_back`.")
    tenant = models.ForeignKey("tenants.Tenant", on_delete=models.PROTECT, null=True, blank=True, related_name="+")
    subject = models.CharField(max_length=200, help_text="The object of the act.")
    details = models.JSONField(default=dict, blank=True)

    class Meta:
        indexes = [models.Index(fields=["tenant", "-recorded_at"], name="audit_by_tenant")]

    def __str__(self) -> str:
        return f"{self.action} {self.subject}"


class IdempotentRequest(models.Model):
    """A POST with an `Idempotency-Key` and the resource that it created, committed in one transaction."""

    tenant = models.ForeignKey("tenants.Tenant", on_delete=models.CASCADE)
    endpoint = models.CharField(max_length=100)
    key = models.CharField(max_length=255)
    fingerprint = models.BinaryField(max_length=32, help_text="SHA-256 of the request's parsed body.")
    resource_id = models.UUIDField(null=True)
    created_at = models.DateTimeField(db_index=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["tenant", "endpoint", "key"], name="idempotency_key_unique"),
        ]
