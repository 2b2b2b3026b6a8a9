"""Grafana's dashboards, written here and provisioned as JSON: `python -m deploy.grafana` writes `dashboards/`."""
