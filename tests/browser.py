"""A real browser, which the tests of a file share: each has a page of its own, in a context without cookies."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Browser, sync_playwright

_CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
_FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
_FLAGS += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]


@contextmanager
def chromium() -> Iterator[Browser]:
    """Start Chromium, which takes 3 s of CPU. Without it the test is skipped, or fails where all must run.

    A file closes it at its end: meanwhile no other test could run an event loop of its own.
    """
    if _CHROMIUM is None:
        assert os.environ.get("EASEL_TESTS_COMPLETE") != "1", "Chromium is not installed"
        pytest.skip("Chromium is not installed")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=_CHROMIUM, args=_FLAGS)
        yield browser
        browser.close()
