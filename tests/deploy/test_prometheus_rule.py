"""Rule files as an object of the Prometheus Operator."""

import subprocess
import sys

import yaml

from tests.deploy.conftest import KUBERNETES, ROOT

ONE = """
groups:
  - name: one
    rules:
      - alert: Waiting
        expr: easel_pending_generations{pool="shared"} > 10
        for: 5m
        annotations:
          summary: "{{ $value }} jobs wait: why?"
"""


def wrapped(*paths):
    argv = [sys.executable, str(KUBERNETES / "prometheus_rule.py"), *map(str, paths)]
    return yaml.safe_load(subprocess.run(argv, capture_output=True, text=True, check=True).stdout)


def test_the_groups_of_all_files_are_in_one_object(tmp_path):
    for name in ("one", "two"):
        (tmp_path / f"{name}.yaml").write_text(ONE.replace("name: one", f"name: {name}"))
    found = wrapped(tmp_path / "one.yaml", tmp_path / "two.yaml")
    assert (found["kind"], [group["name"] for group in found["spec"]["groups"]]) == ("PrometheusRule", ["one", "two"])
    assert found["spec"]["groups"][0] == yaml.safe_load(ONE)["groups"][0]


def test_our_rules_can_be_wrapped():
    paths = sorted((ROOT / "deploy" / "prometheus" / "rules").glob("*.yaml"))
    assert len(wrapped(*paths)["spec"]["groups"]) >= len(paths)
