"""The portal as a browser meets it: through the ASGI application, with cookies and forms."""

import asyncio
import re
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from django.contrib.auth.hashers import PBKDF2PasswordHasher

from easel.actions.roles import operator_create
from easel.asgi import application

PASSWORD = "correct horse battery"


@pytest.fixture(scope="session", autouse=True)
def passwords_are_hashed_in_no_time() -> Iterator[None]:
    """The same algorithm with fewer rounds: each of 250 tests hashes a password twice, for 0.3 s of CPU each time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PBKDF2PasswordHasher, "iterations", 1000)
        yield


class Browser:
    """Keeps cookies, and sends a form's own hidden fields with it, as a browser does."""

    def __init__(self, address: str = "") -> None:
        self.cookies = httpx.Cookies()
        self.address = address or f"2001:db8:{uuid.uuid4().hex[:4]}:{uuid.uuid4().hex[:4]}::1"
        self.name = ""

    def ask(self, method: str, path: str, **options: Any) -> httpx.Response:
        return asyncio.run(self._ask(method, path, **options))

    async def _ask(self, method: str, path: str, **options: Any) -> httpx.Response:
        transport = httpx.ASGITransport(app=application, raise_app_exceptions=False, client=(self.address, 1))
        async with httpx.AsyncClient(
            transport=transport, base_url="http://easel.test", timeout=60, cookies=self.cookies
        ) as client:
            answer = await client.request(method, path, **options)
            self.cookies = client.cookies
            return answer

    def get(self, path: str) -> httpx.Response:
        return self.ask("GET", path)

    def post(self, path: str, **fields: Any) -> httpx.Response:
        """With the token against forgery, but without looking at the form first."""
        token = self.cookies.get("easel_csrf", "")
        return self.ask("POST", path, data={"csrfmiddlewaretoken": token, **fields})

    def fill_in(self, path: str, **fields: Any) -> httpx.Response:
        """Opens a form, and sends it with what it holds and what is given."""
        return self.post(path, **{**hidden_fields(self.get(path).text), **fields})

    def sign_in(self, name: str, password: str = PASSWORD, code: str = "") -> httpx.Response:
        self.name = name
        self.get("/admin/login/")
        return self.post("/admin/login/", username=name, password=password, code=code)


def hidden_fields(page: str) -> dict[str, str]:
    """The values of a page's hidden fields but the token against forgery."""
    inputs = re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)"', page)
    return {name: value for name, value in inputs if name != "csrfmiddlewaretoken"}


@pytest.fixture
def browser() -> Browser:
    return Browser()


@pytest.fixture
def signed_in() -> Callable[[str], Browser]:
    """`signed_in("viewer")`: a browser of a new user of that role."""

    def make(role: str) -> Browser:
        browser = Browser()
        user = operator_create(name=f"{role}-{uuid.uuid4().hex[:10]}", password=PASSWORD, role=role)
        assert browser.sign_in(user.username).status_code == 302
        return browser

    return make


@pytest.fixture
def operator(signed_in: Callable[[str], Browser]) -> Browser:
    return signed_in("operator")


@pytest.fixture
def viewer(signed_in: Callable[[str], Browser]) -> Browser:
    return signed_in("viewer")


@pytest.fixture
def finance(signed_in: Callable[[str], Browser]) -> Browser:
    return signed_in("finance")
