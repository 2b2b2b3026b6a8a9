"""Programs that tests use where they are installed."""

import os
import shutil

import pytest


def tool(name: str) -> str:
    """The program's path. Without it the test is skipped, or fails where all tests have to run."""
    found = shutil.which(name)
    if found is None:
        missing = f"{name} is not installed"
        if os.environ.get("EASEL_TESTS_COMPLETE") == "1":
            pytest.fail(missing)
        pytest.skip(missing)
    return found
