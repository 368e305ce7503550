"""The files with which workers are deployed say what the commands understand, and ask what there is."""

from __future__ import annotations

import configparser
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.grafana.test_made import METRICS
from tests.shop_floor import ROOT, outbox

DEPLOY = ROOT / "workers" / "deploy"
COMPOSE = yaml.safe_load((ROOT / "grafana" / "compose.yaml").read_text())
MANIFESTS = {path.stem: list(yaml.safe_load_all(path.read_text())) for path in (DEPLOY / "kubernetes").glob("*.yaml")}
UNITS = sorted((DEPLOY / "systemd").iterdir())


def understands(words: list[str]) -> None:
    """The command knows all these options."""
    assert words[0].endswith("outbox")
    known = outbox("", words[1], "--help").stdout
    for option in (word for word in words if word.startswith("--")):
        assert option in known, f"{option} of {words}"


def unit(path: Path) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(path)
    return parser


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_a_unit_starts_a_command_that_notifies(path: Path) -> None:
    service = unit(path)["Service"]
    understands(shlex.split(service["ExecStart"]))
    assert (service["Type"], int(service["WatchdogSec"])) == ("notify", 60)


def container(name: str) -> dict[str, Any]:
    (found,) = MANIFESTS[name][0]["spec"]["template"]["spec"]["containers"]
    return dict(found)


@pytest.mark.parametrize("name", ["worker", "exporter"])
def test_a_container_runs_a_command_and_is_probed_where_it_listens(name: str) -> None:
    found = container(name)
    understands(found["args"])
    (port,) = found["ports"]
    address = found["args"][found["args"].index("--metrics" if name == "worker" else "--listen") + 1]
    assert address == f"0.0.0.0:{port['containerPort']}"
    probes = [value["httpGet"] for key, value in found.items() if key.endswith("Probe")]
    assert probes
    assert all(probe["port"] == "metrics" and probe["path"] in ("/healthz", "/readyz") for probe in probes)


def test_a_pod_has_longer_to_end_than_its_handlers() -> None:
    arguments = container("worker")["args"]
    grace = int(arguments[arguments.index("--grace") + 1])
    assert MANIFESTS["worker"][0]["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] >= grace + 10


def test_what_scales_asks_for_metrics_that_there_are() -> None:
    text = (DEPLOY / "kubernetes" / "keda.yaml").read_text() + (DEPLOY / "kubernetes" / "hpa.yaml").read_text()
    asked = set(re.findall(r"outbox_subscription_[a-z_]+", text))
    assert asked
    assert asked <= {metric.name for metric in METRICS}
    assert {MANIFESTS[name][0]["spec"]["scaleTargetRef"]["name"] for name in ("keda", "hpa")} == {"outbox-worker"}


def test_compose_starts_commands_that_there_are_and_finds_its_files() -> None:
    services = COMPOSE["services"]
    assert {"postgres", "worker", "exporter", "prometheus", "grafana"} <= set(services)
    for service in services.values():
        if service.get("command", [""])[0] == "outbox":
            understands(service["command"])
        for volume in service.get("volumes", ()):
            assert (ROOT / "grafana" / volume.split(":")[0]).is_dir(), volume
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ()))


def test_prometheus_scrapes_the_services_of_compose() -> None:
    config = yaml.safe_load((ROOT / "grafana" / "prometheus" / "prometheus.yml").read_text())
    exporter, worker = config["scrape_configs"]
    assert exporter["static_configs"][0]["targets"] == ["exporter:9630"]
    (found,) = worker["dns_sd_configs"]
    assert COMPOSE["services"]["worker"]["command"][-1] == f"0.0.0.0:{found['port']}"


def test_grafana_finds_the_dashboards_where_compose_puts_them() -> None:
    folder = ROOT / "grafana" / "provisioning"
    (provider,) = yaml.safe_load((folder / "dashboards" / "outbox.yml").read_text())["providers"]
    assert f"./dashboards:{provider['options']['path']}:ro" in COMPOSE["services"]["grafana"]["volumes"]
    (source,) = yaml.safe_load((folder / "datasources" / "prometheus.yml").read_text())["datasources"]
    assert source["url"] == "http://prometheus:9090"
