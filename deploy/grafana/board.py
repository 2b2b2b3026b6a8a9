"""Builders of dashboards: queries, panels, variables, and the page."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from grafana_foundation_sdk.builders import bargauge, common, dashboard, prometheus, stat, table, timeseries
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.variants import Dataquery
from grafana_foundation_sdk.models import common as kinds
from grafana_foundation_sdk.models.dashboard import DataSourceRef, DynamicConfigValue, VariableOption, VariableRefresh
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

# The uids of `provisioning/datasources/easel.yaml`.
PROMETHEUS = DataSourceRef(type_val="prometheus", uid="easel-prometheus")
POSTGRESQL = DataSourceRef(type_val="grafana-postgresql-datasource", uid="easel-postgresql")
# The version of Grafana 11.6, whose types the SDK has; Grafana upgrades dashboards of older versions.
SCHEMA_VERSION = 41
WIDTH = 24

Panel = Builder[Any]


@dataclass
class SqlQuery(Dataquery):
    """A PostgreSQL query, for which the SDK has no builder; `format` is `table` or `time_series`."""

    text: str
    format: str
    ref_id: str = "A"

    def build(self) -> "SqlQuery":
        return self

    def to_json(self) -> dict[str, object]:
        return {
            "datasource": POSTGRESQL.to_json(),
            "editorMode": "code",
            "format": self.format,
            "rawQuery": True,
            "rawSql": "\n".join(line.strip() for line in self.text.strip().splitlines()),
            "refId": self.ref_id,
        }


def series(expr: str, legend: str) -> prometheus.Dataquery:
    """Return a PromQL query over the page's time range."""
    return prometheus.Dataquery().expr(expr).legend_format(legend).range().datasource(PROMETHEUS)


def latest(expr: str) -> prometheus.Dataquery:
    """Return a PromQL query at the end of the page's time range."""
    return series(expr, "__auto").instant().format(PromQueryFormat.TIME_SERIES)


def lines(title: str, about: str, *queries: Any, unit: str = "none", span: int = 12, top: float | None = None) -> Panel:
    """Return a panel of lines over time."""
    panel = _framed(timeseries.Panel(), title, about, queries, unit=unit, span=span, height=8)
    panel.fill_opacity(10).line_width(1).show_points(kinds.VisibilityMode.NEVER).min(0).legend(_legend())
    return panel if top is None else panel.max(top)


narrow_lines = partial(lines, span=8)  # a third of the page's width


def stacked_days(title: str, about: str, sql: str, *, unit: str = "none", span: int = 12, stack: bool = True) -> Panel:
    """Return a panel with a bar per day and a part per series. `sql` returns `time`, `metric` (a name), a number."""
    panel = _framed(timeseries.Panel(), title, about, [SqlQuery(sql, "time_series")], unit=unit, span=span, height=9)
    panel.draw_style(kinds.GraphDrawStyle.BARS).bar_width_factor(0.8).fill_opacity(70).line_width(0).legend(_legend())
    return panel.stacking(common.StackingConfig().mode(kinds.StackingMode.NORMAL)) if stack else panel


def number(
    title: str, about: str, *queries: Any, unit: str = "none", span: int = 4, decimals: int | None = None
) -> Panel:
    """Return a panel with the latest value as a large number. A query is SQL text, or made by `latest`."""
    panel = _framed(stat.Panel(), title, about, queries, unit=unit, span=span, height=4)
    panel.reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
    panel.graph_mode(kinds.BigValueGraphMode.NONE).color_mode(kinds.BigValueColorMode.NONE)
    return panel if decimals is None else panel.decimals(decimals)


def ranking(title: str, about: str, sql: str, *, unit: str = "none", span: int = 8) -> Panel:
    """Return a panel with a bar for each row, whose columns are a name and a number."""
    panel = _framed(bargauge.Panel(), title, about, [sql], unit=unit, span=span, height=9)
    panel.reduce_options(common.ReduceDataOptions().values(True).calcs([]).limit(20))
    return panel.orientation(kinds.VizOrientation.HORIZONTAL).display_mode(kinds.BarGaugeDisplayMode.BASIC).min(0)


def listing(
    title: str, about: str, sql: str, *, unit: str = "none", units: dict[str, str] | None = None, span: int = 24
) -> Panel:
    """Return a panel with a table; `units` are the units of columns that don't have `unit`."""
    panel = _framed(table.Panel(), title, about, [sql], unit=unit, span=span, height=9)
    for column, other in (units or {}).items():
        panel.override_by_name(column, [DynamicConfigValue(id_val="unit", value=other)])
    return panel


def choice(name: str, about: str, query: str, *, several: bool = True) -> dashboard.QueryVariable:
    """Return a variable whose values are the first column of a query."""
    made = dashboard.QueryVariable(name).label(name.title()).description(about).query(query).datasource(POSTGRESQL)
    made.refresh(VariableRefresh.ON_DASHBOARD_LOAD).multi(several).include_all(several)
    if several:
        made.current(VariableOption(selected=True, text="All", value="$__all"))
    return made


def page(
    uid: str,
    title: str,
    about: str,
    *panels: Panel,
    variables: Sequence[dashboard.QueryVariable] = (),
    since: str = "now-30d",
    refresh: str = "",
) -> dict[str, Any]:
    """Return a dashboard in the JSON of Grafana's provisioning; panels fill its rows from left to right."""
    board = dashboard.Dashboard(title).uid(uid).description(about).tags(["easel"]).timezone("utc").readonly()
    board.time(since, "now").refresh(refresh).variables(list(variables))
    for number_, panel in enumerate(panels, 1):
        board.with_panel(panel.id(number_))  # type: ignore[attr-defined]
    made: dict[str, Any] = json.loads(json.dumps(board.build(), cls=JSONEncoder))
    for variable in made["templating"]["list"]:
        for interval_only in ("auto", "auto_count", "auto_min"):  # the SDK writes them for every kind of variable
            variable.pop(interval_only, None)
    return {**made, "schemaVersion": SCHEMA_VERSION}


def _framed(panel: Any, title: str, about: str, queries: Sequence[Any], *, unit: str, span: int, height: int) -> Any:
    panel.title(title).description(about).unit(unit).span(span).height(height)
    queries = [SqlQuery(query, "table") if isinstance(query, str) else query for query in queries]
    panel.datasource(POSTGRESQL if isinstance(queries[0], SqlQuery) else PROMETHEUS)
    for letter, query in zip("ABCDE", queries, strict=False):
        panel.with_target(query if isinstance(query, SqlQuery) else query.ref_id(letter))
    return panel


def _legend() -> common.VizLegendOptions:
    legend = common.VizLegendOptions().show_legend(True)
    return legend.display_mode(kinds.LegendDisplayMode.LIST).placement(kinds.LegendPlacement.BOTTOM)
