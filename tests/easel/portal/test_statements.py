"""Statements in the portal: drafted, made final, followed down to a job."""

import re
from datetime import UTC, datetime

import pytest

from billing.invoices.statements import statement_draft, statement_final
from billing.models import Statement

# The jobs of these tests end by the tests' clock: their month is over.
LATER = datetime(2026, 4, 2, tzinfo=UTC)


@pytest.fixture
def draft(alice, submit, end):
    end(submit(alice))
    return statement_draft(alice.tenant, now=LATER)


@pytest.fixture
def empty(alice):
    """Of a month without use, for which no storage is to be metered first."""
    return statement_draft(alice.tenant, now=LATER)


def page(statement, rest="change/"):
    return f"/admin/billing/statement/{statement.pk}/{rest}"


def test_finance_makes_a_statement_final(finance, empty):
    finance.post(page(empty, "action/statement.final"))
    made = Statement.objects.get(pk=empty.pk)
    assert made.state == "final"
    assert f"Statement {made.number}" in finance.get(page(made)).text


def test_a_viewer_cannot(viewer, empty):
    viewer.post(page(empty, "action/statement.final"))
    assert Statement.objects.get(pk=empty.pk).state == "draft"


def test_a_final_statement_offers_nothing_more_to_do(finance, empty):
    statement_final(empty, now=datetime.now(UTC))
    assert "action/statement.final" not in finance.get(page(empty)).text


def test_a_line_leads_to_the_job_behind_it(viewer, draft, alice):
    found = re.search(r'href="(/admin/billing/statementline/\d+/change/)"', viewer.get(page(draft)).text)
    assert f"/admin/jobs/job/{alice.tenant.jobs.get().pk}/change/" in viewer.get(found[1]).text


@pytest.mark.parametrize("form", ["html", "pdf", "csv", "csv?decimal=comma"])
def test_its_documents_are_linked_and_open(viewer, draft, form):
    assert f'href="../document.{form}"' in viewer.get(page(draft)).text
    assert viewer.get(page(draft, f"document.{form}")).status_code == 200
