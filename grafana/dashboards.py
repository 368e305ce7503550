"""The dashboards, each a page for one question."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from grafana_foundation_sdk.builders import dashboard as sdk
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import DashboardLinkType, VariableRefresh, VariableSort

from grafana import actors, database, overview, relays, subscription, workers
from grafana.panels import SOURCE, Panel, build


@dataclass(frozen=True)
class Page:
    title: str
    #: The question that it answers.
    question: str
    #: Rows of panels.
    rows: Mapping[str, tuple[Panel, ...]]
    #: Is it about some subscriptions, chosen at the top?
    chooses: bool = False
    #: About exactly one of them?
    one: bool = False


PAGES = {
    "overview": Page("Outbox / Overview", "Is it flowing?", overview.ROWS, chooses=True),
    "subscription": Page(
        "Outbox / Subscription", "One subscription in depth.", subscription.ROWS, chooses=True, one=True
    ),
    "workers": Page("Outbox / Workers", "What do the worker processes do?", workers.ROWS, chooses=True),
    "database": Page("Outbox / Database health", "What does the log cost, and who holds what up?", database.ROWS),
    "relays": Page("Outbox / Relays", "Does what leaves for other systems arrive there?", relays.ROWS),
    "actors": Page("Outbox / dramatiq actors", "Do dramatiq's actors keep up?", actors.ROWS),
}

_ANNOTATIONS = {
    "Deploys": ("blue", "changes(outbox_worker_start_time_seconds[1m]) > 0"),
    "Pauses": ("orange", "max by (subscription) (outbox_subscription_paused) == 1"),
    "Seeks back": ("purple", "max by (subscription) (resets(outbox_subscription_taken_messages_total[1m])) > 0"),
}


def texts() -> dict[str, str]:
    """The JSON of each."""
    encoder = JSONEncoder(sort_keys=True, indent=1)
    return {name: encoder.encode(_dashboard(name, page).build()) + "\n" for name, page in PAGES.items()}


def _dashboard(name: str, page: Page) -> sdk.Dashboard:
    made = sdk.Dashboard(page.title).uid(f"outbox-{name}").description(page.question).tags(["outbox"])
    made = made.refresh("15s").time("now-1h", "now").timezone("browser")
    made = made.with_variable(sdk.DatasourceVariable("datasource").label("Prometheus").type("prometheus"))
    if page.chooses:
        made = made.with_variable(_subscriptions(page.one))
    made = made.with_variable(sdk.TextBoxVariable("console").label("Console").default_value("http://localhost:9640"))
    others = sdk.DashboardLink("Outbox").type(DashboardLinkType.DASHBOARDS).tags(["outbox"]).as_dropdown(True)
    console = sdk.DashboardLink("Console").type(DashboardLinkType.LINK).url("${console}").target_blank(True)
    made = made.link(others.include_vars(True).keep_time(True)).link(console)
    for title, (colour, expr) in _ANNOTATIONS.items():
        made = made.annotation(
            sdk.AnnotationQuery().name(title).datasource(SOURCE).enable(True).icon_color(colour).expr(expr)
        )
    for title, panels in page.rows.items():
        made = made.with_row(sdk.Row(title))
        for panel in panels:
            made = made.with_panel(build(panel))
    return made


def _subscriptions(one: bool) -> sdk.QueryVariable:
    found = sdk.QueryVariable("subscription").label("Subscription").datasource(SOURCE)
    found = found.query("label_values(outbox_subscription_workers, subscription)")
    found = found.refresh(VariableRefresh.ON_TIME_RANGE_CHANGED).sort(VariableSort.ALPHABETICAL_ASC)
    return found if one else found.multi(True).include_all(True).all_value(".*")


def expressions() -> list[tuple[str, str, str]]:
    """Dashboard, panel and PromQL of all there is to ask; of annotations, too."""
    return [
        (page.title, panel.title, expr)
        for page in PAGES.values()
        for panels in page.rows.values()
        for panel in panels
        for expr in panel.queries
    ] + [("annotations", title, expr) for title, (_, expr) in _ANNOTATIONS.items()]
