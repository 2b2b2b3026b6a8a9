"""Takes what is left of credit grants whose time is up."""

import uuid
from datetime import datetime

from django.db import transaction

from billing.ledger import ledger
from billing.ledger.models import CreditDraw, CreditGrant

# Names what a grant lost for its ledger transaction; never to be changed, since it is what makes a repeat harmless.
_NAMESPACE = uuid.UUID("8f0e6f0a-41c5-4b7e-9a53-6f2f5f8f7a10")


def grants_expire(*, now: datetime) -> int:
    """Takes what is left of each grant that expired; returns of how many.

    What is held for jobs that were admitted in time stays theirs: what they leave of it is taken at the next call.
    """
    due = CreditGrant.objects.filter(expires_at__lte=now, remaining_micros__gt=0).order_by("expires_at", "id")
    return sum(_expire(grant_id, now) for grant_id in list(due.values_list("id", flat=True)))


@transaction.atomic
def _expire(grant_id: uuid.UUID, now: datetime) -> bool:
    tenant = CreditGrant.objects.select_related("tenant").get(id=grant_id).tenant
    free = ledger.locked(tenant).credit  # the accounts before the grants, as everywhere
    grant = CreditGrant.objects.select_for_update().get(id=grant_id)
    amount = min(grant.remaining_micros, free)
    if amount <= 0:
        return False
    # Less is left after each time, so what is left names the time.
    reference = uuid.uuid5(_NAMESPACE, f"{grant.id}/{grant.remaining_micros}")
    made = ledger.expire(tenant=tenant, amount_micros=amount, reference=reference, now=now)
    if made is None:
        return False
    grant.remaining_micros -= amount
    grant.save(update_fields=["remaining_micros"])
    CreditDraw.objects.create(grant=grant, transaction=made, amount_micros=amount)
    return True
