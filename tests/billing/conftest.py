"""What tests of money need."""

from itertools import product
from string import ascii_uppercase

import pytest

_CODES = product("QRSTUVWXYZ", ascii_uppercase, ascii_uppercase)


@pytest.fixture
def currency() -> str:
    """One of this test alone, whose prices are its own."""
    return "".join(next(_CODES))
