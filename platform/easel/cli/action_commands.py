"""Commands from the declarations of actions.

A command is the portal's form as it opens, with what was given filled in: the same defaults, checks and messages.
"""

import getpass
import json
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

import click
from django import forms
from django.core.exceptions import NON_FIELD_ERRORS, ValidationError
from django.utils.choices import CallableChoiceIterator

from easel.actions import fields
from easel.actions.action import Action, ActionForm, Done, action_perform
from easel.actions.declared import ACTIONS
from easel.cli.django_ready import django_ready
from easel.cli.tables import print_fields, print_rows

# The rows that a command shows of its subject, or the fields of one thing.
Show = Callable[[Any, datetime], list[dict[str, Any]] | dict[str, Any]]
# The first kind that a field is of gives its word: Django's numbers with a fraction are kinds of IntegerField.
_WORDS: dict[type[forms.Field], str] = {
    fields.WholeOrNone: "N|none",
    fields.NumberOrNone: "N|none",
    forms.DecimalField: "NUMBER",
    forms.FloatField: "NUMBER",
    forms.IntegerField: "INTEGER",
    forms.DateTimeField: "TIME",
    forms.UUIDField: "UUID",
    fields.Labels: "NAME=VALUE",
}


def command_of(action: Action, *, show: Show | None = None) -> click.Command:
    """Make the command of an action. With `show` it prints these rows at its end, and without input does only that."""

    def run(as_json: bool, **given: Any) -> None:
        with django_ready():
            from django.db import transaction

            now = datetime.now(UTC)
            changes = given_fields(given)
            with transaction.atomic():
                row = subject_of(action, given)
                if show and changes:
                    # The command writes back the fields that it wasn't given: two at once take turns.
                    row = type(row).objects.select_for_update(no_key=True).get(pk=row.pk)
                done = perform(action, row, changes, now=now) if changes or show is None else None
            shown = show(row, now) if show else None
        if isinstance(shown, dict):
            print_fields(shown, as_json)
        elif shown is not None:
            print_rows(shown, as_json)
        elif done is not None:
            print_done(done, as_json)

    return click.Command(
        action.command.split()[-1],
        params=[*params_of(action), click.Option(["--json", "as_json"], is_flag=True, help="Print JSON.")],
        callback=run,
        help=action.explain + (" Without options: show what is set." if show else ""),
        short_help=first_sentence(action.explain),
        # AMOUNT may be below zero: -5 is no option.
        context_settings={"ignore_unknown_options": bool(action.arguments)},
    )


def group_of(name: str) -> click.Group:
    """Make the group `easel NAME` with the commands of its actions; commands of the same names replace them."""
    return click.Group(name, commands=[command_of(action) for action in ACTIONS if action.command.split()[0] == name])


def first_sentence(text: str) -> str:
    return text.split(". ")[0].removesuffix(".") + "."


def params_of(action: Action) -> list[click.Parameter]:
    """Return the arguments and options of an action: first its subject's, then the fields of its form."""
    params: list[click.Parameter] = []
    if action.subject:
        for place, metavar in enumerate(action.subject.arguments):
            params.append(click.Argument([f"subject_{place}"], metavar=metavar))
        for name, help_text in action.subject.options.items():
            params.append(click.Option([f"--{name}", f"subject_{name}"], help=help_text))
    for name, field in _form_of(action).base_fields.items():
        if action.options.get(name, "") is not None and (name in action.options or not field.widget.is_hidden):
            params.append(_param(action, name, field))
    return sorted(params, key=lambda param: isinstance(param, click.Option))


def _param(action: Action, name: str, field: forms.Field) -> click.Parameter:
    kind = click.Path(exists=True, dir_okay=False, allow_dash=True) if hasattr(field, "is_path") else click.STRING
    is_multiple = hasattr(field, "is_multiple") or isinstance(field, forms.MultipleChoiceField)
    if name in action.arguments:
        metavar = (field.label or name).upper().replace(" ", "_")
        required = field.required or not is_multiple
        return click.Argument([name], metavar=metavar, nargs=-1 if is_multiple else 1, required=required, type=kind)
    option = action.options.get(name) or f"--{name.replace('_', '-')}"
    help_text = str(field.help_text) or str(field.label or name.replace("_", " ")).capitalize()
    if isinstance(option, tuple):
        return click.Option([option[0], name], flag_value=option[1], default=None, help=help_text)
    if isinstance(field, forms.BooleanField):
        flags = option if "/" in option else f"{option}/--no-{option.removeprefix('--')}"
        return click.Option([flags, name], default=None, help=help_text)
    if field.initial is not None and not callable(field.initial):
        help_text = f"{help_text} By default {field.initial}."
    return click.Option([option, name], multiple=is_multiple, type=kind, metavar=_metavar(field), help=help_text)


def _metavar(field: forms.Field) -> str | None:
    """Return the values that a field takes, as `--help` shows them; None for the type's word. The form checks them."""
    if isinstance(field, forms.ChoiceField) and not isinstance(field, forms.ModelChoiceField):
        choices: Any = field.choices
        # Choices that are computed need the database's models, which `--help` does not load.
        return None if isinstance(choices, CallableChoiceIterator) else f"[{'|'.join(v for v, _ in choices if v)}]"
    return next((word for kind, word in _WORDS.items() if isinstance(field, kind)), None)


def subject_of(action: Action, given: Mapping[str, Any]) -> Any:
    """Return the row that a command's arguments and options name."""
    if action.subject is None:
        return None
    texts = [given[f"subject_{place}"] for place in range(len(action.subject.arguments))]
    return action.subject.find(*texts, **{name: given[f"subject_{name}"] for name in action.subject.options})


def given_fields(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of the form that a command was given."""
    return {
        name: value
        for name, value in given.items()
        if not name.startswith("subject_") and value is not None and value != ()
    }


def perform(action: Action, row: Any, given: Mapping[str, Any], *, now: datetime) -> Done:
    """Perform an action with a command's input. Raises `click.UsageError` for input that the form refuses."""
    form = _form_of(action)(row=row)
    data = {name: field.prepare_value(form.get_initial_for_field(field, name)) for name, field in form.fields.items()}
    for name, value in action.from_command(dict(given)).items():
        if name not in form.fields:
            raise click.UsageError(f"{_named(action, name)} can't be given here")
        read = getattr(form.fields[name], "from_command", None)
        try:
            data[name] = read(value) if read else value
        except ValidationError as error:
            raise _refusal(action, name, error.messages) from error
    bound = _form_of(action)(data, row=row)
    if not bound.is_valid():
        name, messages = next(iter(bound.errors.items()))
        raise _refusal(action, name, messages)
    return action_perform(action, row, actor=actor_name(), now=now, fields=bound.cleaned_data)


def actor_name() -> str:
    """Return the user that runs this command, as the audit log names it."""
    return f"command:{getpass.getuser()}"


def command_record(action: str, subject: str, *, now: datetime, **about: Any) -> None:
    """Record in the audit log what the user of this command did without an action."""
    from core.audit import audit_record

    audit_record(actor=actor_name(), action=action, subject=subject, now=now, **about)


def print_done(done: Done, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(done.answer or {"message": done.message}))
    else:
        click.echo(done.message)
        if done.secret:
            click.echo(f"{done.secret}\nThe key is shown only now.")


def _form_of(action: Action) -> type[ActionForm]:
    return action.command_form or action.form


def _named(action: Action, name: str) -> str:
    """Return the argument or option of a field, as the command line has it."""
    param = next((param for param in params_of(action) if param.name == name), None)
    if isinstance(param, click.Option):
        return param.opts[0]
    return (param.metavar if param else None) or name


def _refusal(action: Action, name: str, messages: Iterable[Any]) -> click.UsageError:
    text = " ".join(map(str, messages))
    if name == NON_FIELD_ERRORS:
        return click.UsageError(text)
    field = _form_of(action).base_fields.get(name)
    if isinstance(field, forms.ChoiceField):
        choices: Any = field.choices
        text = f"{text} Choose from {', '.join(str(value) for value, _ in choices if value)}."
    return click.BadParameter(text, param_hint=_named(action, name))
