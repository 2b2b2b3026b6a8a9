"""Forecast of a month's cost and detection of unusual days, from costs by day."""

import calendar
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta

from psycopg import sql

from easel.reporting.costs import rows_of
from easel.reporting.exports import Span

WEEKS = 8
CONFIDENCE = 0.8
# Limit of the modified z-score that Iglewicz and Hoaglin (1993) recommend.
_Z_MAX = 3.5
_DAYS_MIN, _WEEKS_MIN = 7, 4
DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """Forecast of a month's cost in micros, with its 80 % interval.

    With too few days to estimate from, parts are None, and `missing` says why.
    """

    spent_micros: int
    expected_micros: int | None
    low_micros: int | None
    high_micros: int | None
    missing: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Anomaly:
    """A day that cost much more or less than the same weekday before; `score` is a modified z-score."""

    day: date
    amount_micros: int
    usual_micros: int
    score: float


def daily(span: Span, *, currency: str) -> dict[date, int]:
    """Charges of each day in micros, from the first day with a charge on; a day without charges has 0."""
    query = sql.SQL("""
        SELECT day, sum(amount_micros)::bigint FROM reporting.costs
         WHERE day BETWEEN {} AND {} AND currency = {} AND {} GROUP BY day ORDER BY day
    """).format(span.start, span.end, currency, span.of_tenant("tenant"))
    found: dict[date, int] = dict(rows_of(query))
    if not found:
        return {}
    first = min(found)
    return {day: found.get(day, 0) for day in (first + DAY * n for n in range((span.end - first).days + 1))}


def forecast(costs: Mapping[date, int], *, today: date) -> Forecast:
    """Forecasts the month of `today`: each day ahead costs the mean of its weekday in the last `WEEKS` weeks.

    The interval is Student's t for a sum of days, from the variance of days around their weekday's mean. It assumes
    independent days, so a trend makes it too narrow. Today counts as its weekday's mean, or its cost if that is higher.
    """
    from scipy.special import stdtrit  # its import is slow, and every process would wait for it

    first = today.replace(day=1)
    last = today.replace(day=calendar.monthrange(today.year, today.month)[1])
    spent = sum(amount for day, amount in costs.items() if first <= day <= today)
    past = {day: amount for day, amount in costs.items() if today - WEEKS * 7 * DAY <= day < today}
    if len(past) < _DAYS_MIN:
        why = f"a forecast needs {_DAYS_MIN} whole days from the first charge on; there are {len(past)}"
        return Forecast(spent_micros=spent, expected_micros=None, low_micros=None, high_micros=None, missing=why)
    by_weekday: dict[int, list[int]] = {}
    for day, amount in past.items():
        by_weekday.setdefault(day.weekday(), []).append(amount)
    means = {weekday: statistics.fmean(amounts) for weekday, amounts in by_weekday.items()}
    ahead = [today + DAY * number for number in range((last - today).days + 1)]
    before = spent - costs.get(today, 0)
    expected = before + max(means[today.weekday()], costs.get(today, 0)) + sum(means[d.weekday()] for d in ahead[1:])
    freedom = len(past) - len(means)
    if freedom < 1:
        why = f"low and high need one weekday twice, so {_DAYS_MIN + 1} whole days; there are {len(past)}"
        rounded = round(expected)
        return Forecast(spent_micros=spent, expected_micros=rounded, low_micros=None, high_micros=None, missing=why)
    variance = sum((amount - means[day.weekday()]) ** 2 for day, amount in past.items()) / freedom
    # Each day ahead has its own variance and that of its weekday's mean, which days of one weekday share.
    of_weekday = [sum(day.weekday() == weekday for day in ahead) for weekday in range(7)]
    shared = sum(count**2 / len(by_weekday[weekday]) for weekday, count in enumerate(of_weekday) if count)
    half = stdtrit(freedom, (1 + CONFIDENCE) / 2) * (variance * (len(ahead) + shared)) ** 0.5
    return Forecast(
        spent_micros=spent,
        expected_micros=round(expected),
        low_micros=max(spent, round(expected - half)),
        high_micros=round(expected + half),
    )


def anomalies(costs: Mapping[date, int], *, since: date) -> list[Anomaly]:
    """Find days from `since` on that deviate from the same weekday in the `WEEKS` weeks before, at least four."""
    found = []
    for day, amount in costs.items():
        before = [costs[day - 7 * DAY * n] for n in range(1, WEEKS + 1) if day - 7 * DAY * n in costs]
        if day < since or len(before) < _WEEKS_MIN:
            continue
        usual = statistics.median(before)
        scatter = statistics.median(abs(one - usual) for one in before)
        # If all weeks were equal, deviations of less than 2 % still count as usual.
        score = 0.6745 * (amount - usual) / max(scatter, usual / 50, 1)
        if abs(score) > _Z_MAX:
            found.append(Anomaly(day=day, amount_micros=amount, usual_micros=round(usual), score=round(score, 1)))
    return found
