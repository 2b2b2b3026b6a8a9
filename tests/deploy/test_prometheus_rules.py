"""Alerts, recording rules and the example configuration, by Prometheus's own tool."""

import subprocess
from pathlib import Path

import pytest
import yaml

from tests.tools import tool

FOLDER = Path(__file__).parents[2] / "deploy" / "prometheus"
RULES = [
    rule for group in yaml.safe_load((FOLDER / "rules/easel.yaml").read_text())["groups"] for rule in group["rules"]
]
ALERTS = {rule["alert"]: rule for rule in RULES if "alert" in rule}
CASES = [
    case
    for file in sorted((FOLDER / "tests").glob("*.yaml"))
    for test in yaml.safe_load(file.read_text())["tests"]
    for case in test["alert_rule_test"]
]


def promtool(*arguments):
    done = subprocess.run([tool("promtool"), *arguments], cwd=FOLDER, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_rules_are_valid():
    promtool("check", "rules", "--lint=all", "--lint-fatal", "rules/easel.yaml")


def test_the_example_configuration_is_valid():
    promtool("check", "config", "prometheus.yaml")


@pytest.mark.parametrize("file", sorted((FOLDER / "tests").glob("*.yaml")), ids=lambda file: file.stem)
def test_alerts_fire_when_they_should_and_only_then(file):
    promtool("test", "rules", f"tests/{file.name}")


@pytest.mark.parametrize("alert", ALERTS)
def test_an_alert_has_a_case_that_fires_and_one_that_stays_silent(alert):
    fires = {bool(case["exp_alerts"]) for case in CASES if case["alertname"] == alert}
    assert fires == {True, False}


@pytest.mark.parametrize("alert", ALERTS)
def test_an_alert_has_a_summary_a_description_and_a_severity(alert):
    assert {"summary", "description"} <= set(ALERTS[alert]["annotations"])
    assert ALERTS[alert]["labels"]["severity"] in {"page", "warn"}
