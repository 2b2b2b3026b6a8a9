"""Service health: is it answering, how fast, and does the queue move."""

from typing import Any

from deploy.grafana.board import latest, lines, number, page, series

# Probes and scrapes are no work of tenants.
WORK = 'route!~"metrics|healthz.*"'


def _latency(quantile: float) -> str:
    rate = f"sum by (route, le) (rate(easel_http_request_seconds_bucket{{{WORK}}}[$__rate_interval]))"
    return f"histogram_quantile({quantile}, {rate})"


def _errors(window: str) -> str:
    failed = f'sum(rate(easel_http_requests_total{{{WORK},status=~"5.."}}[{window}])) or vector(0)'
    return f"({failed}) / sum(rate(easel_http_requests_total{{{WORK}}}[{window}]))"


def dashboard() -> dict[str, Any]:
    return page(
        "easel-health",
        "Easel: service health",
        "Whether tenants get answers and images, and how long they wait. For whoever is on call.",
        [
            number(
                "API processes up",
                "API processes that Prometheus reaches.",
                latest('sum(up{job="easel-api"})'),
                unit="none",
            ),
            number(
                "Workers up",
                "GPU workers that reported in the last seconds, in all pools.",
                latest("sum(max by (pool) (easel_workers))"),
                unit="none",
            ),
            number(
                "Jobs waiting",
                "Jobs that no worker has taken yet.",
                latest("sum(max by (pool) (easel_pending_generations))"),
                unit="none",
            ),
            number(
                "Longest wait",
                "Age of the oldest waiting job.",
                latest("max(easel_oldest_pending_seconds)"),
                unit="s",
            ),
            number(
                "Errors, last 5 minutes",
                "Share of requests that ended with a fault of ours (HTTP 5xx).",
                latest(_errors("5m")),
                unit="percentunit",
                decimals=2,
            ),
            number(
                "Ledger out of balance",
                "Sum of all balances in micro-units of the currency. Anything but 0 is a bookkeeping fault.",
                latest("sum(max by (currency) (abs(easel_ledger_imbalance_micros)))"),
                unit="none",
            ),
            lines(
                "Requests by status",
                "Requests answered in a second: 2xx went well, 4xx the caller has to change, 5xx are our faults.",
                series(f"sum by (status) (rate(easel_http_requests_total{{{WORK}}}[$__rate_interval]))", "{{status}}"),
                unit="reqps",
            ),
            lines(
                "Error rate",
                "Share of requests that ended with a fault of ours (HTTP 5xx).",
                series(_errors("$__rate_interval"), "errors"),
                unit="percentunit",
            ),
            *(
                lines(
                    f"Time to answer, {name}",
                    f"{share} of the requests of a route are answered within this time. Where the call waits for"
                    " the image, that wait is part of it.",
                    series(_latency(quantile), "{{route}}"),
                    unit="s",
                    span=8,
                )
                for name, share, quantile in (("p50", "Half", 0.5), ("p95", "95 %", 0.95), ("p99", "99 %", 0.99))
            ),
            lines(
                "Jobs waiting by pool",
                "Jobs that wait for a free place in a worker. It is what autoscaling acts on.",
                series("max by (pool) (easel_pending_generations)", "{{pool}}"),
                unit="none",
                span=8,
            ),
            lines(
                "Longest wait by pool",
                "Age of the oldest waiting job: it grows while a pool is too small or stands still.",
                series("max by (pool) (easel_oldest_pending_seconds)", "{{pool}}"),
                unit="s",
                span=8,
            ),
            lines(
                "Jobs in workers' hands by pool",
                "Jobs handed to a worker that have not ended.",
                series("max by (pool) (easel_running_generations)", "{{pool}}"),
                unit="none",
                span=8,
            ),
            lines(
                "Jobs ended, by how",
                "Jobs in a second that succeeded, failed, were canceled by their tenant, or expired in the queue.",
                series(
                    "sum by (state) (max by (pool, state) (rate(easel_finished_generations_total[$__rate_interval])))",
                    "{{state}}",
                ),
                unit="ops",
                span=8,
            ),
            lines(
                "Attempts lost",
                "Attempts in a second whose worker fell silent. Their jobs are tried again, at our cost.",
                series("max by (pool) (rate(easel_lost_attempts_total[$__rate_interval]))", "{{pool}}"),
                unit="ops",
                span=8,
            ),
            lines(
                "Workers by pool",
                "GPU workers that reported in the last seconds.",
                series("max by (pool) (easel_workers)", "{{pool}}"),
                unit="none",
                span=8,
            ),
            lines(
                "Webhooks told",
                "Attempts in a second to tell tenants' webhooks: delivered, to be made again, or given up.",
                series(
                    "max by (outcome) (rate(easel_webhook_attempts_total[$__rate_interval]))",
                    "{{outcome}}",
                ),
                unit="ops",
            ),
        ],
        since="now-1h",
        refresh="30s",
    )
