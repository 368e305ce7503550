"""Draw what the dashboards show of the story into grafana/pictures: `python -m tests.grafana.pictures`."""

from __future__ import annotations

import math
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
        _panel(on, panel, axis)
    for axis in axes.flat[len(panels) :]:
        axis.set_visible(False)
    figure.suptitle(page.title + " – a story of two minutes", fontsize=12)
    figure.tight_layout()
    figure.savefig(FOLDER / f"{name}.png", dpi=72)
    pyplot.close(figure)


def _panel(on: Story, panel: Panel, axis: Any) -> None:
    for expr, legend in panel.queries.items():
        for one in on.series(expr.replace('=~"$subscription"', '=~"mailer|ledger|patient"')):
            label = legend
            for key, value in one["metric"].items():
                label = label.replace("{{" + key + "}}", value)
            points = [(at - on.began, float(value)) for at, value in one["values"]]
            axis.plot(*zip(*points, strict=True), linewidth=1, label=label.replace("{{", "").replace("}}", "")[:32])
    axis.set_title(panel.title, fontsize=10, loc="left")
    axis.set_ylabel(_UNITS.get(panel.unit, ""), fontsize=8)
    axis.tick_params(labelsize=7)
    axis.set_ylim(bottom=0)
    axis.grid(alpha=0.3)
    if axis.get_legend_handles_labels()[1]:
        axis.legend(fontsize=6, ncols=3, loc="upper left")


if __name__ == "__main__":
    main()
