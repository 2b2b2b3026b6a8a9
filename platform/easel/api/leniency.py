"""Decides whether a field that Easel can't obey is refused, or ignored with a warning."""

from collections.abc import Collection
from dataclasses import dataclass, field

from core.text import text_escaped
from easel.jobs.spec import FieldWarning

NAME_CHARS_MAX = 64  # of an unknown name in a warning, which is stored with the job


@dataclass(slots=True)
class Leniency:
    """The fields of a request that are ignored where they would be refused: all of them, or those named.

    `warnings` lists what was ignored so far.
    """

    is_lenient: bool = False
    fields: Collection[str] = ()
    warnings: list[FieldWarning] = field(default_factory=list)

    def ignores(self, name: str) -> bool:
        return self.is_lenient or name in self.fields

    def warn(self, name: str, *, code: str, why: str) -> None:
        """Record that a field is ignored, and why it would be refused otherwise."""
        name = text_escaped(name)[:NAME_CHARS_MAX]
        self.warnings.append({"param": name, "code": code, "message": f"ignored {name}: {why}"})
