"""The few kinds of panels that the dashboards are made of."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from grafana_foundation_sdk.builders import bargauge, common, prometheus, stat, timeseries
from grafana_foundation_sdk.builders.dashboard import ThresholdsConfig
from grafana_foundation_sdk.models.common import GraphTresholdsStyleMode, LegendDisplayMode, LegendPlacement
from grafana_foundation_sdk.models.dashboard import DataSourceRef, Threshold, ThresholdsMode
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")

Built = timeseries.Panel | stat.Panel | bargauge.Panel


@dataclass(frozen=True)
class Panel:
    """What a panel shows; its description says what to do when it is red."""

    title: str
    description: str
    unit: str
    #: PromQL → how its series are called.
    queries: dict[str, str]
    kind: Literal["lines", "number", "bars"] = "lines"
    #: From here on it is yellow, and red.
    warn: float | None = None
    red: float | None = None
    #: Of 24.
    width: int = 12
    #: Is little bad?
    less_is_worse: bool = False
    thresholds: list[Threshold] = field(init=False, default_factory=list)


def build(panel: Panel) -> Built:
    """The SDK's builder of a panel."""
    kinds = {"lines": _lines, "number": _number, "bars": _bars}
    built = kinds[panel.kind]()
    height = 4 if panel.kind == "number" else 8
    built = built.title(panel.title).description(panel.description).unit(panel.unit).datasource(SOURCE)  # type: ignore[attr-defined]
    built = built.span(panel.width).height(height).min(0).thresholds(_thresholds(panel))
    for place, (expr, legend) in enumerate(panel.queries.items()):
        query = prometheus.Dataquery().expr(expr).legend_format(legend).ref_id(chr(ord("A") + place)).datasource(SOURCE)
        query = query.range() if panel.kind == "lines" else query.instant()
        built = built.with_target(query.format(PromQueryFormat.TIME_SERIES))
    return built  # type: ignore[no-any-return]


def _lines() -> timeseries.Panel:
    legend = common.VizLegendOptions().display_mode(LegendDisplayMode.LIST).placement(LegendPlacement.BOTTOM)
    style = common.GraphThresholdsStyleConfig().mode(GraphTresholdsStyleMode.DASHED)
    return timeseries.Panel().line_width(1).fill_opacity(10).legend(legend.show_legend(True)).thresholds_style(style)


def _number() -> stat.Panel:
    return stat.Panel().reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))


def _bars() -> bargauge.Panel:
    return bargauge.Panel().reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))


def _thresholds(panel: Panel) -> ThresholdsConfig:
    steps = [Threshold(value=None, color="red" if panel.less_is_worse else "green")]
    if panel.less_is_worse:
        steps += [Threshold(value=panel.red, color="green")] if panel.red is not None else []
    else:
        steps += [Threshold(value=panel.warn, color="yellow")] if panel.warn is not None else []
        steps += [Threshold(value=panel.red, color="red")] if panel.red is not None else []
    return ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(steps)
