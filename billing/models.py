"""All of billing's models in one place, where Django looks for them; each room's `models.py` defines its own."""

# ruff: noqa: F401 - Django and callers find the models here

from billing.budgets.models import Budget, BudgetCrossing, BudgetHold, BudgetMonth
from billing.invoices.models import Statement, StatementLine, StatementSequence
from billing.ledger.models import Adjustment, CreditDraw, CreditGrant, Entry, LedgerAccount, Transaction
from billing.pricing.models import Contract, Meter, PriceBook, PriceTier, Rate
from billing.profiles import BillingProfile
from billing.usage.models import Charge, CostDay, DailyCost, MonthlyQuantity, StorageDay, StoredObject, UsageRecord
