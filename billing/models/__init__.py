"""Money: what was used (`usage`), what it costs (`prices`), where the money is (`ledger`), credit and its limits
(`credit`), what tenants are told (`statements`), and sums of it by the day (`costs`).

Usage, prices, transactions, entries, charges and final statements are append-only, and the database refuses otherwise;
balances are moved by the trigger that sees the entries. Migrations `0002` and `0008` hold the triggers.
"""

from billing.models.costs import CostDay, DailyCost
from billing.models.credit import Budget, BudgetCrossing, BudgetHold, BudgetMonth, CreditDraw, CreditGrant
from billing.models.ledger import Account, Adjustment, Entry, Transaction
from billing.models.prices import Contract, Meter, PriceBook, Rate, RateTier
from billing.models.statements import BillingProfile, Statement, StatementLine, StatementSequence
from billing.models.usage import Charge, MonthlyQuantity, StorageDay, StoredObject, UsageRecord

__all__ = [
    "Account",
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
    "Meter",
    "MonthlyQuantity",
    "PriceBook",
    "Rate",
    "RateTier",
    "Statement",
    "StatementLine",
    "StatementSequence",
    "StorageDay",
    "StoredObject",
    "Transaction",
    "UsageRecord",
]
