"""GPU and engine: how busy the GPUs are, for whom, and how well they are filled.

All of it comes from Easel's own metrics. A GPU's temperature, memory and power are NVIDIA's DCGM exporter's to tell.
"""

from typing import Any

from deploy.grafana.board import latest, lines, number, page, series

_DEVICE = "rate(easel_gpu_device_seconds_total[$__rate_interval])"
_STEPS = "easel_worker_step_seconds"


def _quantile(quantile: float, histogram: str) -> str:
    return f"histogram_quantile({quantile}, sum by (le) (rate({histogram}_bucket[$__rate_interval])))"


def dashboard() -> dict[str, Any]:
    return page(
        "easel-engine",
        "Easel: GPUs and engine",
        "What the GPUs do with their time, for whom, and how many images share a step.",
        [
            number(
                "GPU time in use",
                "Share of the time of all GPUs that drew images, over the last 5 minutes.",
                latest("avg(rate(easel_gpu_device_seconds_total[5m]))"),
                unit="percentunit",
            ),
            number(
                "Images in a step",
                "How many images one pass through the model moved on, on average over the last 5 minutes.",
                latest("sum(rate(easel_worker_step_rows_sum[5m])) / sum(rate(easel_worker_step_rows_count[5m]))"),
                unit="none",
                decimals=1,
            ),
            number(
                "Images in the engines",
                "Images that are being drawn or about to be.",
                latest("sum(easel_worker_rows)"),
                unit="none",
            ),
            number(
                "Attribution drift",
                "GPU time given to no tenant or to two, as a share of GPU time worked. Above 0.1 % bills are wrong.",
                latest("max(easel_attribution_drift_ratio)"),
                unit="percentunit",
                decimals=3,
            ),
            number(
                "Wasted GPU time",
                "GPU time of attempts that made nothing, since the beginning. Nobody is billed for it.",
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
                "Share of the time that a worker's GPU drew images.",
                series(f"sum by (instance) ({_DEVICE})", "{{instance}}"),
                unit="percentunit",
                top=1,
            ),
            lines(
                "Idle, by worker",
                "Share of the time that a worker's GPU had nothing to draw. It is paid for all the same.",
                series(f"clamp_min(1 - sum by (instance) ({_DEVICE}), 0)", "{{instance}}"),
                unit="percentunit",
                top=1,
            ),
            lines(
                "Worked and attributed",
                "GPU seconds worked in a second, and GPU seconds given to tenants. The lines lie on each other.",
                series(f"sum({_DEVICE})", "worked"),
                series("sum(rate(easel_gpu_busy_seconds_total[$__rate_interval]))", "attributed"),
                unit="s",
            ),
            lines(
                "Attribution drift, by worker",
                "GPU time given to no tenant or to two, as a share of the worker's GPU time since it started.",
                series("max by (pool, worker) (easel_attribution_drift_ratio)", "{{pool}} {{worker}}"),
                unit="percentunit",
            ),
            lines(
                "GPU time by tenant",
                "GPU seconds in a second that were worked for each tenant.",
                series("sum by (tenant) (rate(easel_gpu_busy_seconds_total[$__rate_interval]))", "{{tenant}}"),
                unit="s",
            ),
            lines(
                "Images by how they ended",
                "Images in a second that workers finished, failed or gave up on request.",
                series("sum by (outcome) (rate(easel_worker_images_total[$__rate_interval]))", "{{outcome}}"),
                unit="ops",
            ),
            lines(
                "Time of a step",
                "How long one pass of a batch through the model takes.",
                series(_quantile(0.5, _STEPS), "p50"),
                series(_quantile(0.95, _STEPS), "p95"),
                unit="s",
                span=8,
            ),
            lines(
                "Steps",
                "Passes through the model in a second, by worker.",
                series(f"sum by (instance) (rate({_STEPS}_count[$__rate_interval]))", "{{instance}}"),
                unit="ops",
                span=8,
            ),
            lines(
                "Images in a step",
                "How many images share a pass on average: more make an image cheaper.",
                series(
                    "sum by (instance) (rate(easel_worker_step_rows_sum[$__rate_interval]))"
                    " / sum by (instance) (rate(easel_worker_step_rows_count[$__rate_interval]))",
                    "{{instance}}",
                ),
                unit="none",
                span=8,
            ),
            lines(
                "Images in the engines",
                "Images being drawn, and images that wait for room in the batch.",
                series("sum by (state) (easel_worker_rows)", "{{state}}"),
                unit="none",
                span=8,
            ),
            lines(
                "Adapters by where they were",
                "LoRA adapters asked for in a second: found in memory, on the worker's disk, or fetched from storage.",
                series("sum by (source) (rate(easel_worker_adapter_loads_total[$__rate_interval]))", "{{source}}"),
                unit="ops",
                span=8,
            ),
            lines(
                "Time to fetch an adapter, p95",
                "95 % of the adapters that had to be fetched were there within this time.",
                series(_quantile(0.95, "easel_worker_adapter_fetch_seconds"), "p95"),
                unit="s",
                span=8,
            ),
            lines(
                "Model load, by worker",
                "Time that a worker took to load its model and warm up; it serves nobody meanwhile.",
                series("max by (pool, worker) (easel_worker_load_seconds)", "{{pool}} {{worker}}"),
                unit="s",
            ),
            lines(
                "GPU time wasted",
                "GPU seconds in a second of attempts that made nothing, which nobody is billed for.",
                series("max(rate(easel_wasted_gpu_seconds_total[$__rate_interval]))", "wasted"),
                unit="s",
            ),
        ],
        since="now-1h",
        refresh="30s",
    )
