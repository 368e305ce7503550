"""Draw what the dashboards show of the story into grafana/pictures: `python -m tests.grafana.pictures`."""

from __future__ import annotations

import math
import re
import tempfile
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot

from grafana.dashboards import PAGES
from grafana.panels import Panel
from tests.conftest import _cluster
from tests.grafana.story import Story, story, tell
from tests.shop_floor import ROOT, Database

FOLDER = ROOT / "grafana" / "pictures"
_UNITS = {"s": "s", "mps": "messages/s", "ops": "1/s", "bytes": "bytes", "Bps": "bytes/s", "percentunit": "part of 1"}


def main() -> None:
    clusters = _cluster("pg18")
    database = Database(next(clusters), "outbox_template")
    FOLDER.mkdir(exist_ok=True)
    try:
        with tempfile.TemporaryDirectory() as folder, story(database, Path(folder)) as on:
            tell(on)
            for name in ("overview", "subscription", "database"):
                draw(on, name)
    finally:
        database.close()
        clusters.close()  # type: ignore[attr-defined]  # a generator


def draw(on: Story, name: str) -> None:
    """The panels with lines, as they stand on the page."""
    page = PAGES[name]
    panels = [panel for panels in page.rows.values() for panel in panels if panel.kind == "lines"]
    rows = math.ceil(len(panels) / 2)
    figure, axes = pyplot.subplots(rows, 2, figsize=(14, 2.9 * rows), squeeze=False)
    for panel, axis in zip(panels, axes.flat, strict=False):
        _panel(on, panel, axis, "mailer" if page.one else "mailer|ledger|patient")
    for axis in axes.flat[len(panels) :]:
        axis.set_visible(False)
    figure.suptitle(page.title + " – a story of two minutes", fontsize=12)
    figure.tight_layout()
    figure.savefig(FOLDER / f"{name}.png", dpi=72)
    pyplot.close(figure)


def _panel(on: Story, panel: Panel, axis: Any, subscriptions: str) -> None:
    for expr, legend in panel.queries.items():
        for one in on.series(expr.replace("$subscription", subscriptions)):
            at = [at - on.began for at, _ in one["values"]]
            values = [float(value) for _, value in one["values"]]
            for place in range(len(at) - 1, 0, -1):
                if at[place] - at[place - 1] > 1:  # nothing was there: no line
                    at.insert(place, at[place])
                    values.insert(place, math.nan)
            axis.plot(at, values, linewidth=1, label=_label(legend, one["metric"]))
    axis.set_title(panel.title, fontsize=10, loc="left")
    axis.set_ylabel(_UNITS.get(panel.unit, ""), fontsize=8)
    axis.tick_params(labelsize=7)
    axis.set_ylim(bottom=0)
    axis.grid(alpha=0.3)
    handles, labels = axis.get_legend_handles_labels()
    if labels:
        axis.legend(handles[:6], labels[:6], fontsize=6, ncols=3, loc="upper left")


def _label(legend: str, metric: dict[str, str]) -> str:
    """As Grafana fills it in."""
    return re.sub(r"{{(\w+)}}", lambda found: metric.get(found[1], ""), legend).strip()


if __name__ == "__main__":
    main()
