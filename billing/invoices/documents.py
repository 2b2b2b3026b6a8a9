"""Renders a statement as a page for print, as PDF, and as CSV for a spreadsheet."""

import csv
import io
import itertools
from collections.abc import Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, NamedTuple
from xml.sax.saxutils import escape
from zoneinfo import ZoneInfo

from django.template.loader import render_to_string

from billing.invoices.lines import projects_of
from billing.invoices.models import Statement, StatementLine
from billing.money import amount_text, from_micros, places_of, plain

_OTHER_FONT = "STSong-Light"
_COLUMNS = (
    "statement", "period_start", "period_end", "project", "labels", "meter", "model", "description", "quantity",
    "amount", "currency",
)  # fmt: skip


class Group(NamedTuple):
    """The lines of a project, as texts, with their sum; lines without a project belong to the account."""

    name: str
    labels: str
    lines: list[tuple[str, str, str, str]]  # description, model, quantity, amount
    amount: str


def title_of(statement: Statement) -> str:
    """Return `Statement 42` or `Credit note 43`; a draft has no number."""
    name = "Credit note" if statement.kind == Statement.Kind.CREDIT_NOTE else "Statement"
    return f"{name} {statement.number}" if statement.number else name


def period_of(statement: Statement) -> str:
    """Return the first and last day in the statement's zone: `1 October 2026 to 31 October 2026`."""
    last = statement.period_end - timedelta(microseconds=1)
    return f"{_day(statement, statement.period_start)} to {_day(statement, last)}"


def statement_html(statement: Statement, lines: Sequence[StatementLine]) -> str:
    return render_to_string("billing/statement.html", _context(statement, lines))


def statement_csv(statement: Statement, lines: Sequence[StatementLine], *, comma: bool = False) -> str:
    """Return CSV. `comma`: decimal commas, and semicolons between columns, as many spreadsheets expect."""
    file = io.StringIO()
    rows = csv.writer(file, delimiter=";" if comma else ",", lineterminator="\r\n")
    rows.writerow(_COLUMNS)
    projects = projects_of(lines)
    for line in lines:
        project = projects.get(line.project_id) if line.project_id else None
        numbers = (_decimal(line.quantity), _decimal(from_micros(line.amount_micros)))
        rows.writerow(
            (
                statement.number or "draft",
                statement.period_start.isoformat(),
                statement.period_end.isoformat(),
                _cell(project.slug) if project else "",
                _cell(_labels(project.labels)) if project else "",
                line.meter,
                _cell(line.model),
                _cell(line.description),
                *(number.replace(".", ",") if comma else number for number in numbers),
                statement.currency,
            )
        )
    return file.getvalue()


def statement_pdf(statement: Statement, lines: Sequence[StatementLine]) -> bytes:
    from reportlab.lib import colors
    from reportlab.lib.pagesizes import A4
    from reportlab.lib.styles import ParagraphStyle
    from reportlab.lib.units import mm
    from reportlab.platypus import Paragraph, SimpleDocTemplate, Spacer, Table

    shown = _context(statement, lines)
    plain = ParagraphStyle("plain", fontName="Helvetica", fontSize=8.5, leading=11)
    right = ParagraphStyle("right", parent=plain, alignment=2)
    soft = ParagraphStyle("soft", parent=plain, textColor=colors.HexColor("#6b6880"))
    bold = ParagraphStyle("bold", parent=plain, fontName="Helvetica-Bold")
    bold_right = ParagraphStyle("bold right", parent=bold, alignment=2)
    big = ParagraphStyle("big", parent=bold, fontSize=16, leading=20)

    def text(words: str, style: ParagraphStyle) -> Paragraph:
        return Paragraph(_marked(words), style)

    draft = " (draft)" if statement.state == Statement.State.DRAFT else ""
    to = statement.billed_to
    left = [text(shown["title"] + draft, big), text(shown["period"], soft), text(shown["corrects"], soft)]
    recipient = [text(part, right) for part in (to["name"], *to["address"].splitlines(), to["tax_id"]) if part]
    top = ("VALIGN", (0, 0), (-1, -1), "TOP")
    head = Table([[left, recipient]], colWidths=[100 * mm, 80 * mm], style=[top])
    story: list[Any] = [head, Spacer(0, 6 * mm)]
    rule = ("LINEBELOW", (0, 0), (-1, -2), 0.4, colors.HexColor("#dcdae6"))
    columns = (plain, plain, right, right)
    for group in shown["groups"]:
        name = f"{group.name}  {group.labels}".strip()
        rows = [[text(name, bold), text("Model", soft), text("Quantity", right), text(statement.currency, right)]]
        rows += [[text(words, style) for words, style in zip(line, columns, strict=True)] for line in group.lines]
        rows.append([text(group.name, bold), "", "", text(group.amount, bold_right)])
        widths = [98 * mm, 28 * mm, 24 * mm, 30 * mm]
        story += [Table(rows, colWidths=widths, repeatRows=1, style=[rule, top]), Spacer(0, 5 * mm)]
    if not shown["groups"]:
        story.append(text("There were no charges in this month.", plain))
    tax_name = f"{statement.tax_name}, {shown['tax_percent']} %"
    totals = [
        [text("Subtotal", plain), text(f"{shown['subtotal']} {statement.currency}", right)],
        [text(tax_name, plain), text(f"{shown['tax']} {statement.currency}", right)],
        [text("Total", bold), text(f"{shown['total']} {statement.currency}", bold_right)],
    ]
    story.append(Table(totals, colWidths=[40 * mm, 44 * mm], hAlign="RIGHT"))
    file = io.BytesIO()
    document = SimpleDocTemplate(
        file,
        pagesize=A4,
        title=f"{shown['title']} – {to['name']}",
        author="Easel",
        **dict.fromkeys(("leftMargin", "rightMargin", "topMargin", "bottomMargin"), 15 * mm),
        # Renders the same statement to the same bytes.
        invariant=1,
    )
    document.build(story, onFirstPage=_page_number, onLaterPages=_page_number)
    return file.getvalue()


def _page_number(canvas: Any, _document: Any) -> None:
    canvas.setFont("Helvetica", 7)
    canvas.drawRightString(195 * 72 / 25.4, 8 * 72 / 25.4, str(canvas.getPageNumber()))


def _marked(words: str) -> str:
    """Return markup for the PDF. Characters that Helvetica lacks are set in a font of the reader's."""
    from reportlab.pdfbase import pdfmetrics
    from reportlab.pdfbase.cidfonts import UnicodeCIDFont

    if _OTHER_FONT not in pdfmetrics.getRegisteredFontNames():
        pdfmetrics.registerFont(UnicodeCIDFont(_OTHER_FONT))
    runs = itertools.groupby(words, key=lambda letter: letter.encode("cp1252", "ignore") == b"")
    return "".join(
        f'<font name="{_OTHER_FONT}">{escape("".join(letters))}</font>' if other else escape("".join(letters))
        for other, letters in runs
    )


def _context(statement: Statement, lines: Sequence[StatementLine]) -> dict[str, Any]:
    projects = projects_of(lines)
    places = places_of([statement.tax_micros, *(line.amount_micros for line in lines)])
    by_project: dict[Any, list[StatementLine]] = {}
    for line in lines:
        by_project.setdefault(line.project_id, []).append(line)
    return {
        "statement": statement,
        "title": title_of(statement),
        "period": period_of(statement),
        "corrects": f"corrects statement {statement.corrects.number}" if statement.corrects else "",
        "finalised": _day(statement, statement.finalised_at) if statement.finalised_at else "",
        "groups": [
            Group(
                name=projects[project_id].slug if project_id else "Account",
                labels=_labels(projects[project_id].labels) if project_id else "",
                lines=[
                    (one.description, one.model, _decimal(one.quantity), amount_text(one.amount_micros, places=places))
                    for one in found
                ],
                amount=amount_text(sum(line.amount_micros for line in found), places=places),
            )
            for project_id, found in by_project.items()
        ],
        "subtotal": amount_text(statement.subtotal_micros, places=places),
        "tax": amount_text(statement.tax_micros, places=places),
        "tax_percent": plain(statement.tax_rate * 100),
        "total": amount_text(statement.total_micros, places=places),
    }


def _day(statement: Statement, instant: datetime) -> str:
    local = instant.astimezone(ZoneInfo(statement.time_zone))
    return f"{local.day} {local:%B %Y}"


def _labels(labels: dict[str, Any]) -> str:
    return ", ".join(f"{name}: {value}" for name, value in sorted(labels.items()))


def _decimal(value: Decimal | None) -> str:
    return "" if value is None else plain(value)


def _cell(text: str) -> str:
    """Quote a text that a spreadsheet would run as a formula, such as a hostile tenant name."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text
