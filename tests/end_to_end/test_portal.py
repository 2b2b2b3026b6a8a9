"""What an operator does in a browser, and what comes of it for a tenant."""

import re
import uuid
from collections.abc import Iterator

import httpx
import pytest
from playwright.sync_api import BrowserContext, Page, expect

from easel_client import Easel, Refused
from tests.browser import chromium
from tests.live import LiveEasel

PASSWORD = "correct horse battery"


@pytest.fixture(scope="module")
def operator(easel: LiveEasel) -> str:
    name = f"ann-{uuid.uuid4().hex[:8]}"
    made = easel.command("operator", "create", name, "--role", "operator", "--password-stdin", stdin=f"{PASSWORD}\n")
    assert made.returncode == 0, made.stderr
    assert PASSWORD not in made.stdout + made.stderr
    return name


@pytest.fixture(scope="module")
def signed_in(easel: LiveEasel, operator: str) -> Iterator[BrowserContext]:
    """One browser for all tests here, signed in."""
    with chromium() as browser:
        context = browser.new_context()
        page = context.new_page()
        page.goto(f"{easel.url}/admin/")
        page.fill("#id_username", operator)
        page.fill("#id_password", PASSWORD)
        page.click("#login-form button[type=submit]")
        expect(page).to_have_url(f"{easel.url}/admin/")
        page.close()
        yield context


@pytest.fixture
def page(easel: LiveEasel, signed_in: BrowserContext) -> Iterator[Page]:
    """The overview in the browser that is signed in; what goes wrong in this page fails its test.

    Wrong are errors of scripts, what the policy stops (an error in the console), and requests to elsewhere.
    """
    page, wrong = signed_in.new_page(), list[str]()
    page.on("pageerror", lambda error: wrong.append(f"{page.url}: {error}"))
    page.on("console", lambda said: wrong.append(f"{page.url}: {said.text}") if said.type == "error" else None)
    page.on("request", lambda sent: wrong.append(sent.url) if not sent.url.startswith((easel.url, "data:")) else None)
    page.goto(f"{easel.url}/admin/")
    yield page
    page.close()
    assert wrong == []


def slug_of(client: Easel, easel: LiveEasel) -> str:
    """The name of a client's tenant."""
    of_key = "SELECT slug FROM tenants_tenant JOIN tenants_apikey key ON key.tenant_id = tenants_tenant.id"
    return easel.command("psql", "-tAc", f"{of_key} WHERE key_id = '{client.api_key.split('_')[2]}'").stdout.strip()


def test_the_overview_draws_its_charts(easel, alice, page):
    *_, job = alice.jobs.follow(alice.jobs.create(prompt="a red circle", size="128x128"))
    assert job["status"] == "succeeded"
    page.reload()
    expect(page.get_by_role("heading", name="Requests by the day of their end")).to_be_visible()
    has_pixels = (
        "canvas => canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data.some(byte => byte)"
    )
    page.wait_for_function(f"[...document.querySelectorAll('canvas.chart')].some({has_pixels})")


def test_a_tenant_that_is_suspended_is_refused_until_it_is_resumed(easel, alice, page):
    slug = slug_of(alice, easel)
    page.goto(f"{easel.url}/admin/tenants/tenant/?q={slug}")
    page.get_by_role("link", name=slug).click()
    page.get_by_role("button", name="Suspend").click()
    expect(page.get_by_text(f"{slug} is suspended")).to_be_visible()
    with pytest.raises(Refused) as refused:
        alice.costs.get(group_by="project")
    assert refused.value.code == "account_suspended"
    page.get_by_role("button", name="Resume").click()
    expect(page.get_by_text("may call again")).to_be_visible()
    assert alice.costs.get(group_by="project")["data"] == []


def test_credit_is_granted_once_by_a_double_click(easel, alice, page):
    slug = slug_of(alice, easel)
    page.goto(f"{easel.url}/admin/tenants/tenant/?q={slug}")
    page.get_by_role("link", name=slug).click()
    page.get_by_role("link", name="Grant credit").click()
    page.fill("input[name=amount]", "2.5")
    page.fill("input[name=reason]", "invoice 7")
    page.get_by_role("button", name="Grant credit").dblclick()
    expect(page.get_by_text("12.500000 USD", exact=True).first).to_be_visible()


def test_the_cost_of_a_job_is_one_figure_in_the_portal_the_api_and_the_reports(easel, alice, page):
    *_, job = alice.jobs.follow(alice.jobs.create(prompt="a blue square", size="128x128"))
    cost = job["usage"]["cost_details"]
    page.goto(f"{easel.url}/admin/jobs/job/?q={job['id']}")
    page.locator("#result_list a[href*='/change/']").first.click()
    charges = page.locator("section", has=page.get_by_role("heading", name="Charges"))
    expect(charges.locator("tbody tr").last).to_contain_text(f"{cost['amount']} {cost['currency']}")
    asked = f"SELECT sum(amount_micros) FROM reporting.charges WHERE job_id = '{job['id']}'"  # as the dashboards ask
    assert easel.command("psql", "-tAc", asked).stdout.strip() == str(cost["amount_micros"])
    image = page.locator(".portal-images img").first
    assert httpx.get(f"{easel.url}{image.get_attribute('src')}").headers["content-type"] == "image/png"


def test_a_canary_is_rolled_back_by_one_click(easel, page):
    started = easel.command("rollout", "start", "z-image-demo@2")
    assert started.returncode == 0, started.stderr
    page.goto(f"{easel.url}/admin/serving/rollout/?state__exact=running")
    page.get_by_role("link", name="z-image-demo@2").click()
    page.get_by_role("button", name="Roll back").click()
    expect(page.get_by_text("z-image-demo@1 serves all of z-image-demo again")).to_be_visible()
    assert easel.json("rollout", "list")[0]["state"] == "rolled_back"


def test_the_policy_stops_nothing_of_a_page(easel, page):
    """Of each kind of page; what the policy stops is an error in the console, which the fixture collects."""
    for path in ("/admin/jobs/job/", "/admin/tenants/tenant/action/tenant.create", "/admin/costs/", "/docs"):
        page.goto(f"{easel.url}{path}")
    page.goto(f"{easel.url}/admin/tenants/tenant/")
    expect(page.locator("html")).to_have_class(re.compile("light|dark|^$"))  # which a script of the theme sets
    page.get_by_text("Filters").first.click()
    expect(page.get_by_text("Apply Filters")).to_be_visible()


def test_a_page_is_found_and_opened_by_the_keyboard(page):
    page.keyboard.press("Control+k")
    page.locator("#search-input-command").press_sequentially("API keys")
    expect(page.locator("#command-results").get_by_text("API keys")).to_be_visible()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile("/admin/tenants/apikey/"))


def test_the_page_is_dark_where_the_user_chooses_so(page):
    page.locator("[x-on\\:click*=openUserLinks]").first.click()
    page.locator("[x-on\\:click*=\"switchTheme('dark')\"]").first.click()
    expect(page.locator("html")).to_have_class(re.compile("dark"))


def test_a_list_is_filtered_by_a_day_of_the_calendar(page, easel):
    page.goto(f"{easel.url}/admin/jobs/job/")
    page.get_by_text("Filters").first.click()
    page.locator("#calendarlink0").click(timeout=5000)
    page.locator("#calendarbox0 .calendar td a").first.click(timeout=5000)
    page.get_by_text("Apply Filters").click(timeout=5000)
    expect(page).to_have_url(re.compile(r"created_at_from=\d{4}-\d\d-\d\d"))
