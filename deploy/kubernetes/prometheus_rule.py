"""Wraps Prometheus rule files into one PrometheusRule object for the Prometheus Operator."""

import sys
from pathlib import Path

import yaml


def prometheus_rule(paths: list[Path]) -> str:
    """YAML of a PrometheusRule with the groups of all the files."""
    groups = [group for path in paths for group in yaml.safe_load(path.read_text())["groups"]]
    rule = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        # kube-prometheus-stack selects rules by this label.
        "metadata": {"name": "easel", "labels": {"release": "kube-prometheus-stack"}},
        "spec": {"groups": groups},
    }
    return yaml.safe_dump(rule, sort_keys=False, width=1000)


if __name__ == "__main__":
    sys.stdout.write(prometheus_rule([Path(argument) for argument in sys.argv[1:]]))
