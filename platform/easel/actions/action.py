"""The declaration of an action, and the one function that performs it."""

from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass, field
from datetime import datetime
from typing import Any

from django import forms
from django.db import transaction


@dataclass(frozen=True, slots=True)
class Done:
    """The result of an action.

    `subject` (by default the row), `tenant` (by default the row's) and `details` go into the audit record, which is not
    needed if nothing changed or if the verb wrote it. A `secret` is shown once. `answer` is what a command prints as
    JSON. The portal goes on to the row `show`, or to the list if the row `is_gone`.
    """

    message: str
    _: KW_ONLY
    subject: Any = None
    tenant: Any = None
    details: Mapping[str, Any] = field(default_factory=dict)
    needs_record: bool = True
    secret: str = ""
    answer: Mapping[str, Any] = field(default_factory=dict)
    show: Any = None
    is_gone: bool = False


class ActionForm(forms.Form):
    """The inputs of an action. `row` is what it is done to; None where it makes something new."""

    fields: dict[str, Any]

    def __init__(self, data: Any = None, *, row: Any = None) -> None:
        super().__init__(data)
        self.row = row
        self.prepare()

    def prepare(self) -> None:
        """Adapt fields and initial values to the row."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """The kind of row that an action is done to; `find` takes a command's arguments and options."""

    model: str
    arguments: tuple[str, ...]
    find: Callable[..., Any]
    options: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """Something that an operator may do. `perform(row, actor, now, **fields)` calls one verb of the domain.

    `name` is the audit record's action; by default it gives the `command`, the words after `easel`, and the portal's
    `label`. The `permission` is by default to change the subject's model. A field of the form is an option of its own
    name, an argument if it is in `arguments`, or what `options` says: another option, a flag with its value, or None
    for a field that `from_command` derives from the others. `command_form` replaces the form where a command reads the
    same input in another shape, for example from a file.
    """

    name: str
    command: str
    label: str
    explain: str
    permission: str
    perform: Callable[..., Done]
    subject: Subject | None = None
    form: type[ActionForm] = ActionForm
    applies: Callable[[Any], bool] = field(default=lambda row: True)
    one_click: bool = False
    is_dangerous: bool = False
    arguments: tuple[str, ...] = ()
    options: Mapping[str, str | tuple[str, str] | None] = field(default_factory=dict)
    command_form: type[ActionForm] | None = None
    from_command: Callable[[dict[str, Any]], dict[str, Any]] = field(default=lambda given: given)

    @property
    def is_one_click(self) -> bool:
        """True if the portal needs no form for it."""
        return self.one_click or self.form is ActionForm


def action(name: str, **declared: Any) -> Callable[[Callable[..., Done]], Action]:
    """Declare an action by the function that performs it; its docstring is what both surfaces say of the action."""
    by_default = {
        "command": name.replace(".", " ").replace("_", "-"),
        "label": name.partition(".")[2].replace("_", " ").capitalize(),
    }
    if subject := declared.get("subject"):
        by_default["permission"] = subject.model.lower().replace(".", ".change_")

    def declare(perform: Callable[..., Done]) -> Action:
        explain = " ".join(str(perform.__doc__).split())
        return Action(name=name, explain=explain, perform=perform, **{**by_default, **declared})

    return declare


def tenant_of(row: Any) -> Any:
    """Return the tenant that a row is or belongs to; None if it belongs to none."""
    return row if row is None or row._meta.label == "tenants.Tenant" else getattr(row, "tenant", None)


def action_perform(action: Action, row: Any, *, actor: str, now: datetime, fields: Mapping[str, Any]) -> Done:
    """Perform an action and write its audit record, in one transaction.

    `actor` is `operator:<name>` or `command:<user>`; `fields` are the valid values of the action's form. Raises
    whatever the verb refuses with, and then nothing has changed.
    """
    from core.audit import audit_record

    with transaction.atomic():
        done = action.perform(row, actor, now, **fields)
        if done.needs_record:
            tenant, subject = done.tenant or tenant_of(row), str(done.subject or row)
            audit_record(actor=actor, action=action.name, subject=subject, tenant=tenant, details=done.details, now=now)
    return done
