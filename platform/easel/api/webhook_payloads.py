"""The bodies that webhooks get, by the event, for the OpenAPI document. The rooms that emit them declare the data."""

from datetime import datetime
from typing import Annotated

from typing_extensions import TypedDict

from easel.api.declaration import OneOf
from easel.batches.notices import BatchEventData
from easel.jobs.notices import JobEventData
from easel.webhooks.budget_notices import BudgetEventData
from easel.webhooks.models import Event
from easel.webhooks.outbox import TestEventData


class JobEvent(TypedDict):
    """A job has ended. The event has its facts and its cost, and neither its prompt nor its images."""

    type: Annotated[str, OneOf([event.value for event in Event if event.value.startswith("job.")])]
    timestamp: datetime
    data: JobEventData


class BatchEvent(TypedDict):
    """A batch has ended. Its lines send no events of their own."""

    type: Annotated[str, OneOf([event.value for event in Event if event.value.startswith("batch.")])]
    timestamp: datetime
    data: BatchEventData


class BudgetEvent(TypedDict):
    """The spending of a budget has reached one of its thresholds."""

    type: Annotated[str, OneOf([Event.BUDGET_CROSSED.value])]
    timestamp: datetime
    data: BudgetEventData


class TestEvent(TypedDict):
    """You asked for a test."""

    type: Annotated[str, OneOf([Event.TEST.value])]
    timestamp: datetime
    data: TestEventData


_KINDS = {"job": JobEvent, "batch": BatchEvent, "budget": BudgetEvent, "webhook": TestEvent}
PAYLOADS = {event.value: _KINDS[event.value.partition(".")[0]] for event in Event}
