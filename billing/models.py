"""All of billing's models in one place, where Django looks for them; each room's `models.py` defines its own."""

from billing.budgets.models import Budget, BudgetCrossing, BudgetHold, BudgetMonth
from billing.invoices.models import Statement, StatementLine, StatementSequence
from billing.ledger.models import Adjustment, CreditDraw, CreditGrant, Entry, LedgerAccount, Transaction
from billing.pricing.models import Contract, Meter, PriceBook, PriceTier, Rate
from billing.profiles import BillingProfile
from billing.usage.models import Charge, CostDay, DailyCost, MonthlyQuantity, StorageDay, StoredObject, UsageRecord

__all__ = [
    "Adjustment",
    "BillingProfile",
    "Budget",
    "BudgetCrossing",
    "BudgetHold",
    "BudgetMonth",
    "Charge",
    "Contract",
    "CostDay",
    "CreditDraw",
    "CreditGrant",
    "DailyCost",
    "Entry",
    "LedgerAccount",
    "Meter",
    "MonthlyQuantity",
    "PriceBook",
    "PriceTier",
    "Rate",
    "Statement",
    "StatementLine",
    "StatementSequence",
    "StorageDay",
    "StoredObject",
    "Transaction",
    "UsageRecord",
]
