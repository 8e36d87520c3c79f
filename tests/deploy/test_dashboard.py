"""The dashboard is one that Grafana loads, and what Compose gives Grafana and Prometheus fits together."""

import copy
import json
from collections import Counter
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from tests.deploy.manifests import DEPLOY, ROOT

DASHBOARD: dict[str, Any] = json.loads((DEPLOY / "dashboards" / "ovsam.json").read_text())
Damage = Callable[[Any], object]
_WIDTH = 24  # columns of Grafana's grid


def _dashboard_faults(dashboard: dict[str, Any]) -> list[str]:
    panels = dashboard["panels"]
    faults = [f"two panels have the id {n}" for n, count in Counter(p["id"] for p in panels).items() if count > 1]
    if dashboard.get("uid") != "ovsam":
        faults.append("its uid is another, so links to it break")
    variables = {f"${{{variable['name']}}}" for variable in dashboard["templating"]["list"]}
    taken: dict[tuple[int, int], str] = {}
    for panel in panels:
        title, place = panel["title"], panel["gridPos"]
        if place["x"] + place["w"] > _WIDTH:
            faults.append(f"{title} is beyond the edge")
        cells = [(x, y) for x in range(place["x"], place["x"] + place["w"]) for y in _rows(place)]
        faults += sorted({f"{title} lies over {taken[cell]}" for cell in cells if cell in taken})
        taken |= dict.fromkeys(cells, title)
        if panel["type"] == "row":
            continue
        if not panel["fieldConfig"]["defaults"].get("unit"):
            faults.append(f"{title} has no unit")
        if not panel["targets"]:
            faults.append(f"{title} asks for nothing")
        if panel["datasource"]["uid"] not in variables:
            faults.append(f"{title} asks a source that is not there")
    return faults


def _rows(place: dict[str, int]) -> range:
    return range(place["y"], place["y"] + place["h"])


def test_the_dashboard_is_one_that_grafana_loads() -> None:
    assert _dashboard_faults(DASHBOARD) == []


@pytest.mark.parametrize(
    ("damage", "fault"),
    [
        (lambda board: board.update(uid="other"), "its uid is another, so links to it break"),
        (lambda board: board["panels"][1].update(id=board["panels"][2]["id"]), "two panels have the id 3"),
        (lambda board: board["panels"][1]["gridPos"].update(x=20), "Gateways that answer is beyond the edge"),
        (lambda board: board["panels"][1]["gridPos"].update(y=0), "Gateways that answer lies over"),
        (lambda board: board["panels"][1]["fieldConfig"]["defaults"].pop("unit"), "Gateways that answer has no unit"),
        (lambda board: board["panels"][1].update(targets=[]), "Gateways that answer asks for nothing"),
        (lambda board: board["templating"]["list"].clear(), "Gateways that answer asks a source that is not there"),
    ],
)
def test_a_damaged_dashboard_is_caught(damage: Damage, fault: str) -> None:
    dashboard = copy.deepcopy(DASHBOARD)
    damage(dashboard)
    assert any(found.startswith(fault) for found in _dashboard_faults(dashboard))


def _compose() -> dict[str, Any]:
    services: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    return services


def _wiring_faults(services: dict[str, Any], prometheus: dict[str, Any]) -> list[str]:
    """Grafana finds the dashboard and Prometheus, and Prometheus the gateway."""
    provisioning = DEPLOY / "dashboards" / "provisioning"
    source = yaml.safe_load((provisioning / "datasources" / "prometheus.yaml").read_text())["datasources"][0]["url"]
    provider = yaml.safe_load((provisioning / "dashboards" / "ovsam.yaml").read_text())["providers"][0]
    mounts = [volume.split(":")[1] for volume in services["grafana"]["volumes"]]
    faults = []
    if f"{provider['options']['path']}/ovsam.json" not in mounts:
        faults.append("the dashboard lies in no folder that Grafana reads")
    if "/etc/grafana/provisioning" not in mounts:
        faults.append("Grafana is told of no source and no folder")
    if urlsplit(source).hostname not in services:
        faults.append(f"Grafana asks {source}")
    static = [config for scrape in prometheus["scrape_configs"] for config in scrape.get("static_configs", [])]
    own = {f"gateway:{services['gateway']['environment'].get('OVSAM_METRICS_PORT', 8000)}"}
    return faults + [f"Prometheus asks {host}" for config in static for host in config["targets"] if host not in own]


def _prometheus() -> dict[str, Any]:
    configuration: dict[str, Any] = yaml.safe_load((DEPLOY / "alerts" / "prometheus.yml").read_text())
    return configuration


def test_compose_gives_each_what_it_asks_for() -> None:
    assert _wiring_faults(_compose(), _prometheus()) == []


@pytest.mark.parametrize(
    ("damage", "fault"),
    [
        (lambda services: services["grafana"]["volumes"].pop(1), "the dashboard lies in no folder that Grafana reads"),
        (lambda services: services["grafana"]["volumes"].pop(0), "Grafana is told of no source and no folder"),
        (lambda services: services.pop("prometheus"), "Grafana asks http://prometheus:9090"),
        (
            lambda services: services["gateway"]["environment"].update(OVSAM_METRICS_PORT="9464"),
            "Prometheus asks gateway:8000",
        ),
    ],
)
def test_a_wire_that_leads_nowhere_is_caught(damage: Damage, fault: str) -> None:
    services = _compose()
    damage(services)
    assert _wiring_faults(services, _prometheus()) == [fault]
