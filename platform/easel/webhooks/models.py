"""Webhooks: endpoints, messages, their deliveries, and the attempts to deliver them."""

import uuid

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import F, Q

from tenants.models import Tenant


class Event(models.TextChoices):
    """Events of which webhooks notify a tenant."""

    JOB_SUCCEEDED = "job.succeeded", "a job succeeded"
    JOB_FAILED = "job.failed", "a job failed"
    JOB_CANCELED = "job.canceled", "a job was canceled"
    JOB_EXPIRED = "job.expired", "a job expired"
    BATCH_COMPLETED = "batch.completed", "a batch was worked off"
    BATCH_FAILED = "batch.failed", "the file of a batch has faults"
    BATCH_EXPIRED = "batch.expired", "a batch was not worked off in time"
    BATCH_CANCELLED = "batch.cancelled", "a batch was canceled"
    BUDGET_CROSSED = "budget.threshold_reached", "a budget's spending reached a threshold"
    TEST = "webhook.test", "a test that the tenant requested"


class WebhookEndpoint(models.Model):
    """A tenant's URL, which gets messages of `events`, or of all events if there are none; secrets are encrypted.

    After a rotation the previous secret signs as well until `previous_until`.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE, related_name="webhooks")
    url = models.CharField(max_length=2000)
    events = ArrayField(models.CharField(max_length=40, choices=Event), default=list, blank=True)
    secret = models.BinaryField(max_length=400)
    previous_secret = models.BinaryField(max_length=400, null=True)
    previous_until = models.DateTimeField(null=True)
    disabled_at = models.DateTimeField(null=True, blank=True)
    disabled_reason = models.CharField(max_length=200, blank=True)
    delivered_at = models.DateTimeField(null=True, blank=True, help_text="Time of the latest success.")
    created_at = models.DateTimeField()

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(disabled_at__isnull=True, disabled_reason="")
                | (Q(disabled_at__isnull=False) & ~Q(disabled_reason="")),
                name="webhook_disabled_with_a_reason",
            ),
            models.CheckConstraint(
                condition=Q(previous_secret__isnull=True, previous_until__isnull=True)
                | Q(previous_secret__isnull=False, previous_until__isnull=False),
                name="webhook_previous_secret_ends",
            ),
        ]
        indexes = [models.Index(fields=["tenant", "created_at"], name="webhook_by_tenant")]

    def __str__(self) -> str:
        return self.url


class WebhookMessage(models.Model):
    """An event, written in the transaction that caused it; receivers recognise a repeat by its id."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE, related_name="+")
    event = models.CharField(max_length=40, choices=Event)
    data = models.JSONField()
    created_at = models.DateTimeField(db_index=True)


class WebhookDelivery(models.Model):
    """A message for an endpoint: `attempts` have started, and the next is due at `next_at`.

    A deliverer leases it until `leased_until`; once the lease has expired, another deliverer may claim it.
    """

    class State(models.TextChoices):
        PENDING = "pending", "to be sent or retried"
        DELIVERED = "delivered", "answered with 2xx"
        FAILED = "failed", "not delivered within a day"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    endpoint = models.ForeignKey(WebhookEndpoint, on_delete=models.CASCADE, related_name="deliveries")
    message = models.ForeignKey(WebhookMessage, on_delete=models.CASCADE, related_name="deliveries")
    state = models.CharField(max_length=10, choices=State, default=State.PENDING)
    attempts = models.PositiveSmallIntegerField(default=0, help_text="Attempts since the message was sent or replayed.")
    next_at = models.DateTimeField()
    leased_until = models.DateTimeField(null=True, blank=True)
    created_at = models.DateTimeField()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["endpoint", "message"], name="webhook_delivery_once")]
        indexes = [
            models.Index(fields=["endpoint", "next_at"], condition=Q(state="pending"), name="webhook_delivery_due"),
            models.Index(
                fields=["endpoint"],
                condition=Q(state="pending", leased_until__isnull=False),
                name="webhook_delivery_in_hand",
            ),
            models.Index(fields=["endpoint", "-created_at", "-id"], name="webhook_delivery_by_time"),
        ]


class WebhookAttempt(models.Model):
    """A request to an endpoint, and its result."""

    delivery = models.ForeignKey(WebhookDelivery, on_delete=models.CASCADE, related_name="tries")
    sent_at = models.DateTimeField()
    seconds = models.FloatField()
    status = models.PositiveSmallIntegerField(null=True, help_text="HTTP status; None if there was no answer.")
    outcome = models.CharField(max_length=200, help_text="`delivered`, or the reason of the failure.")
    response = models.CharField(max_length=500, blank=True, help_text="Beginning of the response body.")

    class Meta:
        ordering = [F("sent_at").asc()]


class WebhookTotal(models.Model):
    """Total of all attempts with an outcome; the attempts themselves are deleted after some time."""

    class Outcome(models.TextChoices):
        DELIVERED = "delivered", "answered with 2xx"
        RETRIED = "retried", "failed, to be retried"
        GIVEN_UP = "given_up", "failed for the last time"

    outcome = models.CharField(max_length=10, choices=Outcome, primary_key=True)
    attempts = models.BigIntegerField()
