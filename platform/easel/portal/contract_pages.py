"""The section of a tenant's page on its contracts."""

from easel.portal import cells
from easel.portal.pages import Section
from tenants.models import Tenant


def contracts_section(tenant: Tenant) -> Section:
    """A tenant's contracts, the latest first."""
    return Section(
        "Contracts",
        ("From", "Until", "Discount", "Minimum of a month", "Own prices"),
        [
            (
                cells.when(contract.starts_at),
                cells.when(contract.ends_at),
                f"{(contract.discount * 100).normalize():f} %",
                cells.money(contract.minimum_micros, tenant.currency),
                cells.link(contract.price_book),
            )
            for contract in tenant.contracts.select_related("price_book__tenant").order_by("-starts_at")
        ],
        "No contract: the list's prices apply.",
    )
