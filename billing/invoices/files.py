"""Statements as files: a page that prints well, a PDF, or CSV for a spreadsheet."""

from dataclasses import dataclass

from billing.invoices.documents import statement_csv, statement_html, statement_pdf
from billing.models import Statement

_MEDIA_TYPES = {"html": "text/html; charset=utf-8", "pdf": "application/pdf", "csv": "text/csv; charset=utf-8"}
FORMS = tuple(_MEDIA_TYPES)


@dataclass(frozen=True, slots=True, kw_only=True)
class StatementFile:
    name: str
    media_type: str
    content: bytes

    @property
    def disposition(self) -> str:
        """The Content-Disposition header: a page opens in the browser, the others are downloads."""
        return f'{"inline" if self.name.endswith(".html") else "attachment"}; filename="{self.name}"'


def statement_file(statement: Statement, form: str, *, comma: bool = False) -> StatementFile:
    """Write a statement in one of `FORMS`; with `comma`, a CSV has decimal commas."""
    lines = list(statement.lines.all())
    if form == "html":
        content = statement_html(statement, lines).encode()
    elif form == "pdf":
        content = statement_pdf(statement, lines)
    else:
        content = statement_csv(statement, lines, comma=comma).encode()
    name = f"{statement.kind}-{statement.number or 'draft'}.{form}"
    return StatementFile(name=name, media_type=_MEDIA_TYPES[form], content=content)
