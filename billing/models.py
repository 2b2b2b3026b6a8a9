"""All of billing's models in one place, where Django looks for them; each room's `models.py` defines its own."""

from billing.budgets.models import Budget, BudgetCrossing, BudgetHold, BudgetMonth
from billing.invoices.models import BillingProfile, Statement, StatementLine, StatementSequence
from billing.ledger.models import Adjustment, CreditDraw, CreditGrant, Entry, LedgerAccount, Transaction
from billing.pricing.models import Contract, Meter, PriceBook, PriceTier, Rate
from billing.usage.cost_models import CostDay, DailyCost
from billing.usage.models import Charge, MonthlyQuantity, StorageDay, StoredObject, UsageRecord

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
