"""The list of declared actions."""

from easel.actions import credit, jobs, limits, prices, serving, statements, tenants

ACTIONS = (
    *tenants.ACTIONS,
    *credit.ACTIONS,
    *limits.ACTIONS,
    *prices.ACTIONS,
    *statements.ACTIONS,
    *serving.ACTIONS,
    *jobs.ACTIONS,
)
