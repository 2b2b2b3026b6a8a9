"""Limits, shares and retention by the command line: a number or none, and nothing else."""

import json
from decimal import Decimal

import pytest
from click.testing import CliRunner

from easel.cli.tenants import tenant
from tenants.models import Quota


def easel(command, customer, *arguments):
    return CliRunner().invoke(tenant, [command, customer.tenant.slug, *arguments])


@pytest.mark.parametrize("text", ["-1", "1.5", "NaN", "Infinity", "many", "", "1e999999999"])
def test_what_is_no_whole_number_is_no_whole_limit(alice, text):
    refused = easel("limit", alice, f"--requests-per-minute={text}")
    assert (refused.exit_code, "--requests-per-minute" in refused.output) == (2, True)
    assert Quota.objects.get(tenant=alice.tenant).requests_per_minute is None


@pytest.mark.parametrize("text", ["0", "2147483648", "-1", "many"])
def test_nobody_is_let_run_nothing_or_more_than_the_column_holds(alice, text):
    assert easel("share", alice, f"--running-jobs-max={text}").exit_code == 2


def test_a_limit_is_a_number_or_none(alice):
    easel("limit", alice, "--requests-per-minute", "0", "--image-units-per-month", "2.5", "--steps-max", "8")
    [row] = json.loads(easel("limit", alice, "--steps-max", "none", "--json").output)
    assert (row["requests_per_minute"], Decimal(row["image_units_per_month"]), row["steps_max"]) == (0, 2.5, None)


def test_a_keys_limits_are_its_own(alice):
    easel("limit", alice, "--key", alice.key.key_id, "--requests-per-minute", "7")
    assert Quota.objects.get(api_key=alice.key).requests_per_minute == 7
    assert Quota.objects.get(tenant=alice.tenant, api_key=None).requests_per_minute is None


def test_retention_is_shown_without_being_changed(alice):
    easel("retention", alice, "--output-days", "3")
    assert json.loads(easel("retention", alice, "--json").output)[0]["output_days"] == 3


def test_a_limit_that_is_not_given_stays_as_it_is(alice):
    easel("limit", alice, "--requests-per-minute", "60")
    easel("limit", alice, "--steps-max", "8")
    quota = Quota.objects.get(tenant=alice.tenant, api_key=None)
    assert (quota.requests_per_minute, quota.steps_max, quota.pixels_max) == (60, 8, 1792 * 1024)


def test_origins_are_set_shown_and_ended(alice):
    easel("origins", alice, "https://app.example", "http://localhost:5173")
    shown = json.loads(easel("origins", alice, "--json").output)
    assert shown == [{"tenant": alice.tenant.slug, "origins": ["https://app.example", "http://localhost:5173"]}]
    assert easel("origins", alice, "https://app.example/page").exit_code != 0
    assert json.loads(easel("origins", alice, "none", "--json").output)[0]["origins"] == []


def test_moderation_without_a_classifier_says_that_there_is_none(alice):
    assert "EASEL_MODERATION_URL is not set" in easel("moderation", alice, "prompts").output
    assert "EASEL_MODERATION_URL" not in easel("moderation", alice, "off").output
