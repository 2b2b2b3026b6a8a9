"""The list of declared actions."""

from types import ModuleType

from easel.actions import credit, jobs, keys, limits, prices, serving, statements, tenants
from easel.actions.action import Action


def actions_of(*modules: ModuleType) -> tuple[Action, ...]:
    """Return the actions that these modules declare."""
    # Not `isinstance`, which would load Django's settings where a module imports them.
    return tuple(found for module in modules for found in vars(module).values() if type(found) is Action)


ACTIONS = actions_of(tenants, keys, credit, limits, prices, statements, serving, jobs)
