"""The dashboard of service health: errors, latency, queues and workers."""

from deploy.grafana.board import latest, lines, narrow_lines, number, page, series

# Leaves out probes and scrapes, which are no requests of tenants.
WORK = 'route!~"metrics|healthz.*"'


def _latency(quantile: float) -> str:
    rate = f"sum by (route, le) (rate(easel_http_request_seconds_bucket{{{WORK}}}[$__rate_interval]))"
    return f"histogram_quantile({quantile}, {rate})"


def _errors(window: str) -> str:
    failed = f'sum(rate(easel_http_requests_total{{{WORK},status=~"5.."}}[{window}])) or vector(0)'
    return f"({failed}) / sum(rate(easel_http_requests_total{{{WORK}}}[{window}]))"


BOARD = page(
    "easel-health",
    "Easel: service health",
    "Errors, latency, queues and workers, for the engineer on call.",
    number("API processes up", "API processes that Prometheus can scrape.", latest('sum(up{job="easel-api"})')),
    number(
        "Workers up",
        "GPU workers that sent a beat in the last seconds, in all pools.",
        latest("sum(max by (pool) (easel_workers))"),
    ),
    number(
        "Jobs waiting", "Jobs that no worker has taken yet.", latest("sum(max by (pool) (easel_pending_generations))")
    ),
    number("Longest wait", "Age of the oldest waiting job.", latest("max(easel_oldest_pending_seconds)"), unit="s"),
    number(
        "Errors, last 5 minutes",
        "Share of requests that failed with HTTP 5xx.",
        latest(_errors("5m")),
        unit="percentunit",
        decimals=2,
    ),
    number(
        "Ledger out of balance",
        "Sum of all balances in micro-units of the currency. It must be 0.",
        latest("sum(max by (currency) (abs(easel_ledger_imbalance_micros)))"),
    ),
    lines(
        "Requests by status",
        "Requests per second by HTTP status.",
        series(f"sum by (status) (rate(easel_http_requests_total{{{WORK}}}[$__rate_interval]))", "{{status}}"),
        unit="reqps",
    ),
    lines(
        "Error rate",
        "Share of requests that failed with HTTP 5xx.",
        series(_errors("$__rate_interval"), "errors"),
        unit="percentunit",
    ),
    *(
        narrow_lines(
            f"Latency, {name}",
            f"{share} of a route's requests are answered within this time, a wait for an image included.",
            series(_latency(quantile), "{{route}}"),
            unit="s",
        )
        for name, share, quantile in (("p50", "Half", 0.5), ("p95", "95 %", 0.95), ("p99", "99 %", 0.99))
    ),
    narrow_lines(
        "Jobs waiting by pool",
        "Jobs that wait for a worker. Autoscaling follows this number.",
        series("max by (pool) (easel_pending_generations)", "{{pool}}"),
    ),
    narrow_lines(
        "Longest wait by pool",
        "Age of the oldest waiting job. It grows while a pool has too few workers.",
        series("max by (pool) (easel_oldest_pending_seconds)", "{{pool}}"),
        unit="s",
    ),
    narrow_lines(
        "Running jobs by pool",
        "Jobs that were dispatched to a worker and have not ended.",
        series("max by (pool) (easel_running_generations)", "{{pool}}"),
    ),
    narrow_lines(
        "Ended jobs by state",
        "Jobs per second that succeeded, failed, were canceled or expired.",
        series(
            "sum by (state) (max by (pool, state) (rate(easel_finished_generations_total[$__rate_interval])))",
            "{{state}}",
        ),
        unit="ops",
    ),
    narrow_lines(
        "Lost attempts",
        "Attempts per second whose worker stopped sending beats. Their jobs are retried, at our cost.",
        series("max by (pool) (rate(easel_lost_attempts_total[$__rate_interval]))", "{{pool}}"),
        unit="ops",
    ),
    narrow_lines(
        "Workers by pool",
        "GPU workers that sent a beat in the last seconds.",
        series("max by (pool) (easel_workers)", "{{pool}}"),
    ),
    lines(
        "Webhook attempts",
        "Attempts per second to deliver webhooks, by outcome: delivered, retried or given up.",
        series("max by (outcome) (rate(easel_webhook_attempts_total[$__rate_interval]))", "{{outcome}}"),
        unit="ops",
    ),
    since="now-1h",
    refresh="30s",
)
