"""Tests of a whole Easel, which `tests/live.py` starts."""

import pytest

from easel_client import Easel
from tests.live import LiveEasel


@pytest.hookimpl(trylast=True)  # after `tests/conftest.py`, which puts the longest files first
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the test that stops the shared stack after all others, which use it."""
    items.sort(key=lambda item: item.name.startswith("test_stopping_"))


@pytest.fixture
def alice(easel: LiveEasel) -> Easel:
    return easel.tenant()
