"""The dashboard of GPUs and the engine: utilisation, attribution to tenants, and batch sizes.

Its metrics are Easel's own. NVIDIA's DCGM exporter has temperature, memory and power of GPUs.
"""

from deploy.grafana.board import latest, lines, narrow_lines, number, page, series

_DEVICE = "rate(easel_gpu_device_seconds_total[$__rate_interval])"
_STEPS = "easel_worker_step_seconds"


def _quantile(quantile: float, histogram: str) -> str:
    return f"histogram_quantile({quantile}, sum by (le) (rate({histogram}_bucket[$__rate_interval])))"


BOARD = page(
    "easel-engine",
    "Easel: GPUs and engine",
    "Utilisation of the GPUs, attribution to tenants, and images per step.",
    number(
        "GPU time in use",
        "Share of time in which GPUs generated images, average over the last 5 minutes.",
        latest("avg(rate(easel_gpu_device_seconds_total[5m]))"),
        unit="percentunit",
    ),
    number(
        "Images per step",
        "Images per pass through the model, average over the last 5 minutes.",
        latest("sum(rate(easel_worker_step_rows_sum[5m])) / sum(rate(easel_worker_step_rows_count[5m]))"),
        decimals=1,
    ),
    number("Images in the engines", "Images that are being generated or prepared.", latest("sum(easel_worker_rows)")),
    number(
        "Attribution drift",
        "Difference of busy and attributed GPU time, as a share of busy time. Above 0.1 % charges are wrong.",
        latest("max(easel_attribution_drift_ratio)"),
        unit="percentunit",
        decimals=3,
    ),
    number(
        "Wasted GPU time",
        "GPU time of attempts without a result, in total. It is not charged.",
        latest("max(easel_wasted_gpu_seconds_total)"),
        unit="s",
    ),
    number(
        "Slowest model load",
        "Longest time that a worker took to load its model and warm up.",
        latest("max(easel_worker_load_seconds)"),
        unit="s",
    ),
    lines(
        "Busy, by worker",
        "Share of time in which a worker's GPU generated images.",
        series(f"sum by (instance) ({_DEVICE})", "{{instance}}"),
        unit="percentunit",
        top=1,
    ),
    lines(
        "Idle, by worker",
        "Share of time in which a worker's GPU had no work. The provider charges for it.",
        series(f"clamp_min(1 - sum by (instance) ({_DEVICE}), 0)", "{{instance}}"),
        unit="percentunit",
        top=1,
    ),
    lines(
        "Busy and attributed",
        "Busy GPU seconds per second, and GPU seconds attributed to tenants. The lines should coincide.",
        series(f"sum({_DEVICE})", "busy"),
        series("sum(rate(easel_gpu_busy_seconds_total[$__rate_interval]))", "attributed"),
        unit="s",
    ),
    lines(
        "Attribution drift, by worker",
        "Difference of busy and attributed GPU time, as a share of the worker's busy time since it started.",
        series("max by (pool, worker) (easel_attribution_drift_ratio)", "{{pool}} {{worker}}"),
        unit="percentunit",
    ),
    lines(
        "GPU time by tenant",
        "GPU seconds per second attributed to each tenant.",
        series("sum by (tenant) (rate(easel_gpu_busy_seconds_total[$__rate_interval]))", "{{tenant}}"),
        unit="s",
    ),
    lines(
        "Images by outcome",
        "Images per second that succeeded, failed or were canceled.",
        series("sum by (outcome) (rate(easel_worker_images_total[$__rate_interval]))", "{{outcome}}"),
        unit="ops",
    ),
    narrow_lines(
        "Step duration",
        "Time of one pass of a batch through the model.",
        series(_quantile(0.5, _STEPS), "p50"),
        series(_quantile(0.95, _STEPS), "p95"),
        unit="s",
    ),
    narrow_lines(
        "Steps",
        "Passes through the model per second, by worker.",
        series(f"sum by (instance) (rate({_STEPS}_count[$__rate_interval]))", "{{instance}}"),
        unit="ops",
    ),
    narrow_lines(
        "Images per step, by worker",
        "Average images per pass; larger batches make an image cheaper.",
        series(
            "sum by (instance) (rate(easel_worker_step_rows_sum[$__rate_interval]))"
            " / sum by (instance) (rate(easel_worker_step_rows_count[$__rate_interval]))",
            "{{instance}}",
        ),
    ),
    narrow_lines(
        "Images in the engines, by state",
        "Images being generated, and images that wait for room in the batch.",
        series("sum by (state) (easel_worker_rows)", "{{state}}"),
    ),
    narrow_lines(
        "Adapters by source",
        "LoRA adapters loaded per second: from memory, from the worker's disk, or from storage.",
        series("sum by (source) (rate(easel_worker_adapter_loads_total[$__rate_interval]))", "{{source}}"),
        unit="ops",
    ),
    narrow_lines(
        "Time to fetch an adapter, p95",
        "95 % of the adapters that were fetched from storage took at most this time.",
        series(_quantile(0.95, "easel_worker_adapter_fetch_seconds"), "p95"),
        unit="s",
    ),
    lines(
        "Model load, by worker",
        "Time that a worker took to load its model and warm up, in which it takes no jobs.",
        series("max by (pool, worker) (easel_worker_load_seconds)", "{{pool}} {{worker}}"),
        unit="s",
    ),
    lines(
        "Wasted GPU time, rate",
        "GPU seconds per second of attempts without a result, which are not charged.",
        series("max(rate(easel_wasted_gpu_seconds_total[$__rate_interval]))", "wasted"),
        unit="s",
    ),
    since="now-1h",
    refresh="30s",
)
