from datetime import timedelta

from core.models import AuditEvent
from core.pages import page_after
from tests.conftest import NOW


def test_pages_that_follow_one_another_show_each_row_once_in_order():
    subject = "pages"
    for minutes in (0, 1, 1, 1, 2):  # three rows of one instant: only their ids tell them apart
        recorded_at = NOW + timedelta(minutes=minutes)
        AuditEvent.objects.create(recorded_at=recorded_at, actor="platform", action="test.page", subject=subject)
    rows, order = AuditEvent.objects.filter(subject=subject), ("-recorded_at", "id")
    shown, after, has_more = [], None, True
    while has_more:
        page, has_more = page_after(rows, order=order, after=after, limit=2)
        shown += page
        after = page[-1]
    assert shown == list(rows.order_by(*order))
    assert len(shown) == 5


def test_a_page_that_ends_with_the_last_row_says_that_no_more_follow():
    AuditEvent.objects.create(recorded_at=NOW, actor="platform", action="test.page", subject="one page")
    rows = AuditEvent.objects.filter(subject="one page")
    assert page_after(rows, order=("id",), after=None, limit=1) == (list(rows), False)
