from decimal import Decimal

import click
import pytest

from easel.cli.limits import NO_LIMIT, Limit, WholeLimit
from easel.cli.tenants import RunningJobs


@pytest.mark.parametrize("text", ["-1", "1.5", "NaN", "Infinity", "many", "", "1e999999999"])
def test_what_is_no_whole_number_is_no_whole_limit(text):
    with pytest.raises(click.BadParameter):
        WholeLimit().convert(text, None, None)


@pytest.mark.parametrize("text", ["0", "2147483648", "-1", "many"])
def test_nobody_is_let_run_nothing_or_more_than_the_column_holds(text):
    with pytest.raises(click.BadParameter):
        RunningJobs().convert(text, None, None)


def test_a_limit_is_a_number_or_none():
    assert [WholeLimit().convert("0", None, None), Limit().convert("2.5", None, None)] == [0, Decimal("2.5")]
    assert WholeLimit().convert("none", None, None) is NO_LIMIT
