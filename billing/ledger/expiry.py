"""Takes the remainder of credit grants that have expired."""

import uuid
from datetime import datetime

from django.db import transaction

from billing.ledger.accounts import balance_lock
from billing.ledger.models import CreditDraw, CreditGrant
from billing.ledger.postings import credit_expire

# Never change it: a grant's id in this namespace is the ledger's reference, which makes a repeat harmless.
_NAMESPACE = uuid.UUID("8f0e6f0a-41c5-4b7e-9a53-6f2f5f8f7a10")


def grants_expire(*, now: datetime) -> int:
    """Take the remainder of each expired grant; return the number of grants.

    Credit that is held for running jobs stays held. What a job returns of it is taken by a later call.
    """
    due = CreditGrant.objects.filter(expires_at__lte=now, remaining_micros__gt=0).order_by("expires_at", "id")
    return sum(_expire(grant_id, now) for grant_id in list(due.values_list("id", flat=True)))


@transaction.atomic
def _expire(grant_id: uuid.UUID, now: datetime) -> bool:
    tenant = CreditGrant.objects.select_related("tenant").get(id=grant_id).tenant
    free = balance_lock(tenant).credit  # accounts are locked before grants, as everywhere
    grant = CreditGrant.objects.select_for_update().get(id=grant_id)
    amount = min(grant.remaining_micros, free)
    if amount <= 0:
        return False
    # The remainder shrinks each time, so it tells the times apart.
    reference = uuid.uuid5(_NAMESPACE, f"{grant.id}/{grant.remaining_micros}")
    posted = credit_expire(tenant=tenant, amount_micros=amount, reference=reference, now=now)
    if posted is None:
        return False
    grant.remaining_micros -= amount
    grant.save(update_fields=["remaining_micros"])
    CreditDraw.objects.create(grant=grant, transaction=posted, amount_micros=amount)
    return True
