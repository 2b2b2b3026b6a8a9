import pytest

from tests.easel.portal.conftest import Browser


def test_a_stranger_sees_no_costs():
    assert Browser().get("/admin/costs/").status_code == 302


@pytest.mark.parametrize(
    "query", ["", "?month=2026-13", "?month=x&currency=usd", "?label=team&value=", "?value=*", "?value='; --%25s"]
)
def test_the_page_makes_the_best_of_what_is_asked(viewer, query):
    answer = viewer.get(f"/admin/costs/{query}")
    assert answer.status_code == 200
    assert "Measured and not charged" in answer.text


def test_the_side_bar_leads_to_it(viewer):
    assert 'href="/admin/costs/"' in viewer.get("/admin/").text
