"""Tenants' experiments: their arms and their results."""

from collections.abc import Iterable

from billing.money import format_micros
from easel.portal import cells
from easel.portal.pages import Page, Section, TenantFilter, register
from easel.serving.experiment_report import Comparison, experiment_report
from easel.serving.models import Arm, Experiment


@register(Experiment)
class ExperimentPage(Page):
    empty = (
        "A tenant's experiments appear here once it has started one: POST /v1/experiments, or easel my "
        "experiments start."
    )
    list_display = ("name", "tenant", "model", "shown_state", "started_at", "stopped_at")
    list_filter = (TenantFilter, "state", "model")
    search_fields = ("name", "tenant__slug")
    list_select_related = ("tenant", "model")
    ordering = ("-started_at", "-id")
    fields = ("name", "tenant", "model", "shown_state", "started_at", "stopped_at")

    def sections(self, row: Experiment) -> Iterable[Section]:
        yield Section(
            "Arms",
            ("Arm", "Callers", "Sets"),
            [(arm.name, f"{arm.weight} %", _sets(arm)) for arm in row.arms.select_related("version__model")],
            "",
        )
        reports = experiment_report(row)
        yield Section.of(
            "Results",
            reports,
            {
                "Arm": lambda report: report.arm.name,
                "Jobs": lambda report: cells.number(report.jobs),
                "Succeeded": lambda report: cells.number(report.succeeded),
                "Failed": lambda report: cells.number(report.failed),
                "Scored": lambda report: cells.number(report.feedback),
                "Seconds, p50": lambda report: cells.seconds(report.seconds_p50),
                "Seconds, p95": lambda report: cells.seconds(report.seconds_p95),
                "Cost": lambda report: cells.money(report.cost_micros, row.tenant.currency),
            },
            "",
        )
        yield Section.of(
            "Compared with the first arm: mean of the callers, 95 % interval, p",
            reports,
            {
                "Arm": lambda report: report.arm.name,
                "Score": lambda report: _compared(report.score, "{:.3f}"),
                "Error rate": lambda report: _compared(report.error_rate, "{:.3f}"),
                "Seconds": lambda report: _compared(report.seconds, "{:.3f} s"),
                "Cost of a job": lambda report: _compared_money(report.job_cost_micros, row.tenant.currency),
            },
            "",
        )


def _sets(arm: Arm) -> str:
    adapters = ", ".join(f"{used['name']} × {used['scale']:g}" for used in arm.adapters)
    found = (("version", arm.version and arm.version.label), ("adapters", adapters), ("steps", arm.steps))
    return ", ".join(f"{name} {value}" for name, value in found if value) or "nothing: as the model is"


def _compared(metric: Comparison, form: str) -> str:
    if metric.mean is None:
        return cells.NOTHING
    shown = form.format(metric.mean)
    if metric.low is not None and metric.high is not None:
        shown += f" ({form.format(metric.low)} to {form.format(metric.high)})"
    return shown + _chance(metric)


def _compared_money(metric: Comparison, currency: str) -> str:
    return cells.NOTHING if metric.mean is None else format_micros(round(metric.mean), currency) + _chance(metric)


def _chance(metric: Comparison) -> str:
    if metric.p_value is None:
        return ""
    return ", p < 0.0001" if metric.p_value < 0.0001 else f", p {metric.p_value:.4f}"
