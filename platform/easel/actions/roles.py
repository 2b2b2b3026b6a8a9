"""Roles: a viewer reads everything, finance sets prices and gives credit, an operator does everything.

A role is a group of Django's. The permissions are those that Django makes of each model; each action asks for the one
of the model that it changes. No permission lets anybody edit a row: the pages have no such form.
"""

from typing import Any

from django.apps import AppConfig
from django.contrib.auth.models import Group, Permission, User
from django.contrib.auth.password_validation import validate_password
from django.db import transaction
from django.db.models import Q

from core.errors import DomainError
from easel.actions import credit, prices, statements
from easel.actions.declared import ACTIONS, actions_of

READ_APPS = ("core", "tenants", "billing", "catalog", "serving", "jobs", "batches", "webhooks")
FINANCE = {action.permission for action in actions_of(credit, prices, statements)}
OPERATOR = {action.permission for action in ACTIONS}
ROLES: dict[str, set[str]] = {"operator": OPERATOR, "finance": FINANCE, "viewer": set()}


class OperatorExists(DomainError, code="operator_exists", http_status=409):
    """This name is taken: choose another.

    Choose another name.
    """


class OperatorNotFound(DomainError, code="operator_not_found", http_status=404):
    """There is no operator of this name.

    Take the name from the list of operators in the portal (`/admin/`).
    """


def roles_make(*, app_config: AppConfig, **_signal: Any) -> None:
    """Set each role's permissions to those listed here, after Django has made those of an app."""
    if app_config.label not in READ_APPS:
        return
    for role, permissions in ROLES.items():
        wanted = Q(content_type__app_label__in=READ_APPS, codename__startswith="view_")
        for permission in permissions:
            app, codename = permission.split(".")
            wanted |= Q(content_type__app_label=app, codename=codename)
        group, _ = Group.objects.get_or_create(name=role)
        group.permissions.set(Permission.objects.filter(wanted))


@transaction.atomic
def operator_create(*, name: str, password: str, role: str) -> User:
    """Make a user of the portal. Raises `OperatorExists`, and `ValidationError` for a weak password or name."""
    if User.objects.filter(username=name).exists():
        raise OperatorExists
    user = User(username=name, is_staff=True)
    validate_password(password, user)
    user.set_password(password)
    user.full_clean()
    user.save()
    user.groups.set([Group.objects.get(name=role)])
    return user


def operator_disable(*, name: str) -> None:
    """End a user's sign-ins and sessions. Raises `OperatorNotFound`."""
    if not User.objects.filter(username=name).update(is_active=False):
        raise OperatorNotFound
