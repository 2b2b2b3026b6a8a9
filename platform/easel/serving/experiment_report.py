"""The report of an experiment: each arm's results, and which differences are statistically significant.

The unit of observation is the caller, because callers were assigned to arms: a caller with a hundred jobs is one
observation, the mean of its jobs. Each metric has Student's t interval for the mean of the arm's callers, and Welch's
t-test (unequal variances) of the arm's callers against those of the first arm.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import mean, stdev
from typing import Any

from django.db import connection

from easel.serving.models import Arm, Experiment

CONFIDENCE = 0.95
# A caller's pseudonym. It replaces the user in a job whose content is deleted, so that reports don't change.
CALLER = """encode(sha256(convert_to({salt}::text || "user", 'UTF8')), 'hex')"""
# One row per caller. A job without a user is a caller of its own, as in the assignment to arms.
_CALLERS = f"""
    WITH cost AS (
        SELECT record.job_id, sum(charge.amount_micros) AS micros
          FROM billing_usagerecord AS record
          JOIN billing_charge AS charge ON charge.usage_record_id = record.id
          JOIN jobs_job AS job ON job.id = record.job_id
          JOIN serving_arm AS arm ON arm.id = job.arm_id AND arm.experiment_id = %(experiment)s
         GROUP BY record.job_id
    )
    SELECT job.arm_id,
           count(*), count(*) FILTER (WHERE job.state = 'succeeded'), count(*) FILTER (WHERE job.state = 'failed'),
           coalesce(sum(cost.micros), 0)::bigint, count(feedback.score),
           avg(CASE job.state WHEN 'failed' THEN 1.0 WHEN 'succeeded' THEN 0.0 END)::float,
           avg(extract(epoch FROM job.finished_at - job.created_at)) FILTER (WHERE job.state = 'succeeded')::float,
           avg(cost.micros)::float, avg(feedback.score)
      FROM jobs_job AS job
      JOIN tenants_tenant AS tenant ON tenant.id = job.tenant_id
      JOIN serving_arm AS arm ON arm.id = job.arm_id AND arm.experiment_id = %(experiment)s
      LEFT JOIN cost ON cost.job_id = job.id
      LEFT JOIN jobs_feedback AS feedback ON feedback.job_id = job.id
     GROUP BY job.arm_id, CASE WHEN job.user = '' THEN job.id::text
                               WHEN job.deleted_at IS NOT NULL THEN job.user
                               ELSE {CALLER.format(salt="tenant.caller_salt")} END
"""  # noqa: S608 - made of constants
_P95 = """
    SELECT arm_id, percentile_cont(ARRAY[0.5, 0.95])
                   WITHIN GROUP (ORDER BY extract(epoch FROM finished_at - created_at)::float)
      FROM jobs_job WHERE state = 'succeeded' AND arm_id IN (SELECT id FROM serving_arm WHERE experiment_id = %s)
     GROUP BY arm_id
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """A metric of an arm: the callers' mean with its 95 % interval, and the difference from the first arm's mean.

    The interval is None if there are fewer than two callers or all have the same value; the p-value, if either arm has
    fewer than two callers or neither has two values that differ.
    """

    callers: int
    mean: float | None
    low: float | None
    high: float | None
    difference: float | None = None
    p_value: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmReport:
    """Results of an arm; durations in seconds from request to image, `job_cost_micros` in micro-units per job."""

    arm: Arm
    jobs: int
    succeeded: int
    failed: int
    feedback: int
    cost_micros: int
    seconds_p50: float | None
    seconds_p95: float | None
    score: Comparison
    error_rate: Comparison
    seconds: Comparison
    job_cost_micros: Comparison


# Columns of `_CALLERS`: those that are summed over an arm's callers, and means over each caller's jobs to compare.
_SUMS = ("jobs", "succeeded", "failed", "cost_micros", "feedback")
_MEANS = ("error_rate", "seconds", "job_cost_micros", "score")


def experiment_report(experiment: Experiment) -> list[ArmReport]:
    """Report on each arm, in their order; the others are tested against the first."""
    with connection.cursor() as cursor:
        cursor.execute(_CALLERS, {"experiment": experiment.pk})
        callers = [dict(zip(("arm", *_SUMS, *_MEANS), row, strict=True)) for row in cursor]
        cursor.execute(_P95, [experiment.pk])
        percentiles = dict(cursor.fetchall())
    first: dict[str, list[float]] = {}
    reports = []
    for arm in experiment.arms.select_related("version"):
        own = [caller for caller in callers if caller["arm"] == arm.pk]
        means = {name: [caller[name] for caller in own if caller[name] is not None] for name in _MEANS}
        results: dict[str, Any] = {name: sum(caller[name] for caller in own) for name in _SUMS}
        results |= {name: compare(values, first.get(name, ())) for name, values in means.items()}
        p50, p95 = percentiles.get(arm.pk, (None, None))
        reports.append(ArmReport(arm=arm, seconds_p50=p50, seconds_p95=p95, **results))
        first = first or means
    return reports


def compare(values: Sequence[float], against: Sequence[float] = ()) -> Comparison:
    """Compute the mean of `values` with its interval, and test it against another arm's values if there are any."""
    low, high = _interval(values)
    own = mean(values) if values else None
    found = Comparison(callers=len(values), mean=own, low=low, high=high)
    if own is None or not against:
        return found
    return replace(found, difference=own - mean(against), p_value=_p_value(values, against))


def _interval(values: Sequence[float]) -> tuple[float | None, float | None]:
    if not _varies(values):
        return None, None
    from scipy import stats  # its import takes most of a second, which every command would wait for

    error = stdev(values) / math.sqrt(len(values))
    low, high = stats.t.interval(CONFIDENCE, len(values) - 1, loc=mean(values), scale=error)
    return float(low), float(high)


def _p_value(values: Sequence[float], against: Sequence[float]) -> float | None:
    if min(len(values), len(against)) < 2 or not (_varies(values) or _varies(against)):
        return None
    from scipy import stats

    # From moments that `statistics` sums exactly: scipy's own lose precision if all callers have equal values.
    moments = [(mean(sample), stdev(sample), len(sample)) for sample in (values, against)]
    return float(stats.ttest_ind_from_stats(*moments[0], *moments[1], equal_var=False).pvalue)


def _varies(values: Sequence[float]) -> bool:
    return len(values) > 1 and max(values) > min(values)
