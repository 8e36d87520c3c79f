"""Dashboard, alerts and scalers ask for metrics that the service has; promtool runs each alert on recorded series."""

import copy
import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from service.telemetry import PrometheusObserver
from service.transports.status import STATUSES
from tests.deploy.manifests import DEPLOY, build, of_kind

ALERTS = DEPLOY / "alerts"
RULES: dict[str, Any] = yaml.safe_load((ALERTS / "rules.yaml").read_text())
DASHBOARD: dict[str, Any] = json.loads((DEPLOY / "dashboards" / "ovsam.json").read_text())
README = (DEPLOY / "README.md").read_text()
Damage = Callable[[Any], object]
_EDGE_CODES = {"ok", "internal", "departed"}  # counted at the transports' edge, in no table


def _promtool(*arguments: str, folder: Path = ALERTS) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(["promtool", *arguments], cwd=folder, capture_output=True, text=True, check=False, timeout=60)


def _rules() -> Iterator[dict[str, Any]]:
    for group in RULES["groups"]:
        yield from group["rules"]


def _alerts() -> list[dict[str, Any]]:
    return [rule for rule in _rules() if "alert" in rule]


def _expressions() -> list[str]:
    panels = [target["expr"] for panel in DASHBOARD["panels"] for target in panel.get("targets", [])]
    scaled = of_kind(build("gpu"), "ScaledObject")
    queries = [trigger["metadata"]["query"] for item in scaled for trigger in item["spec"]["triggers"]]
    return [*panels, *queries, *(rule["expr"] for rule in _rules())]


def _metrics() -> dict[str, set[str]]:
    """Sample names and their label names, from an observer that has seen everything once."""
    observer = PrometheusObserver()
    with observer.request("id", {}):
        pass
    observer.stage("decode", 0.1)
    observer.batch("prompt_decoder", 1)
    observer.cache("memory")
    observer.cache_fault("timeout")
    observer.queue("prompt_decoder", 1)
    observer.dropped("prompt_decoder", "departed")
    families = text_string_to_metric_families(observer.render().decode())
    return {sample.name: set(sample.labels) for family in families for sample in family.samples}


def _metric_faults(expression: str) -> list[str]:
    metrics = _metrics()
    recorded = {rule["record"] for rule in _rules() if "record" in rule}
    faults = []
    for name, selector in re.findall(r"\b(ovsam[a-z_:0-9]+)(?:\{([^}]*)\})?", expression):
        if name not in metrics and name not in recorded:
            faults.append(f"{name} is no metric")
        else:
            labels = set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", selector or ""))
            faults += [f"{name} has no label {label}" for label in labels - metrics.get(name, set())]
    known = {status.code for status in STATUSES.values()} | _EDGE_CODES
    for codes in re.findall(r'code!?=~?"([^"]*)"', expression):
        faults += [f"{code} is no code" for code in codes.split("|") if code not in known]
    return faults


def test_every_expression_asks_for_what_is_there() -> None:
    assert [fault for expression in _expressions() for fault in _metric_faults(expression)] == []


@pytest.mark.parametrize(
    ("expression", "fault"),
    [
        ("rate(ovsam_request_total[5m])", "ovsam_request_total is no metric"),
        ('rate(ovsam_requests_total{status="ok"}[5m])', "ovsam_requests_total has no label status"),
        ('rate(ovsam_requests_total{code=~"internal|overlaoded"}[5m])', "overlaoded is no code"),
    ],
)
def test_a_wrong_metric_is_caught(expression: str, fault: str) -> None:
    assert _metric_faults(expression) == [fault]


def test_every_metric_is_on_the_dashboard() -> None:
    shown = " ".join(target["expr"] for panel in DASHBOARD["panels"] for target in panel.get("targets", []))
    families = {re.sub(r"_(total|created|bucket|sum|count)$", "", name) for name in _metrics()}
    assert [family for family in families if family not in shown] == []


def _as_rules(expressions: list[str], folder: Path) -> Path:
    """A file of rules that promtool parses the expressions from."""
    rules = [{"record": f"checked:{index}", "expr": expression} for index, expression in enumerate(expressions)]
    path = folder / "expressions.yaml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "checked", "rules": rules}]}))
    return path


def test_every_expression_parses(tmp_path: Path) -> None:
    done = _promtool("check", "rules", str(_as_rules(_expressions(), tmp_path)))
    assert done.returncode == 0, done.stderr
    damaged = _promtool("check", "rules", str(_as_rules(["sum(rate(ovsam_requests_total[5m])"], tmp_path)))
    assert damaged.returncode != 0


def test_prometheus_accepts_its_configuration() -> None:
    done = _promtool("check", "config", "prometheus.yml")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("old", "new"),
    [("scrape_interval", "scrap_interval"), ("15s", "15 seconds"), ("- rules.yaml", "- [rules.yaml]")],
)
def test_a_damaged_configuration_is_caught(tmp_path: Path, old: str, new: str) -> None:
    shutil.copytree(ALERTS, tmp_path, dirs_exist_ok=True)
    configuration = tmp_path / "prometheus.yml"
    assert old in configuration.read_text()
    configuration.write_text(configuration.read_text().replace(old, new, 1))
    assert _promtool("check", "config", "prometheus.yml", folder=tmp_path).returncode != 0


def test_alerts_fire_on_their_fault_and_on_nothing_else() -> None:
    done = _promtool("test", "rules", "rules.test.yaml")
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_changed_threshold_is_caught(tmp_path: Path) -> None:
    shutil.copytree(ALERTS, tmp_path, dirs_exist_ok=True)
    rules = tmp_path / "rules.yaml"
    assert "(ovsam_queue_items) > 512" in rules.read_text()
    rules.write_text(rules.read_text().replace("(ovsam_queue_items) > 512", "(ovsam_queue_items) > 5120"))
    done = _promtool("test", "rules", "rules.test.yaml", folder=tmp_path)
    assert done.returncode != 0
    assert "OvsamQueueFilling" in done.stdout + done.stderr


def _alert_faults(alerts: list[dict[str, Any]], readme: str) -> list[str]:
    """Each alert is tested where it fires and where it is quiet, and leads to a section of the runbooks."""
    tests = yaml.safe_load((ALERTS / "rules.test.yaml").read_text())["tests"]
    cases = [case for test in tests for case in test.get("alert_rule_test", [])]
    firing = {case["alertname"] for case in cases if "exp_alerts" in case}
    quiet = {case["alertname"] for case in cases if "exp_alerts" not in case}
    names = {alert["alert"] for alert in alerts}
    headings = set(re.findall(r"^### (\w+)$", readme, re.MULTILINE))
    faults = [f"{name} is not tested both ways" for name in names - (firing & quiet)]
    faults += [f"{name} is tested and does not exist" for name in (firing | quiet) - names]
    faults += [f"{name} has no runbook" for name in names - headings]
    links = {alert["alert"]: alert["annotations"].get("runbook") for alert in alerts}
    return faults + [f"{n} leads elsewhere" for n, link in links.items() if link != f"deploy/README.md#{n.lower()}"]


def test_each_alert_is_tested_both_ways_and_has_a_runbook() -> None:
    assert _alert_faults(_alerts(), README) == []


@pytest.mark.parametrize(
    ("damage", "fault"),
    [
        (lambda alerts: alerts.append({"alert": "OvsamNew", "annotations": {}}), "OvsamNew is not tested both ways"),
        (lambda alerts: alerts.append({"alert": "OvsamNew", "annotations": {}}), "OvsamNew has no runbook"),
        (lambda alerts: alerts.pop(0), "OvsamNoGateway is tested and does not exist"),
        (lambda alerts: alerts[0]["annotations"].update(runbook="wiki"), "OvsamNoGateway leads elsewhere"),
    ],
)
def test_an_alert_without_test_or_runbook_is_caught(damage: Damage, fault: str) -> None:
    alerts = copy.deepcopy(_alerts())
    damage(alerts)
    assert fault in _alert_faults(alerts, README)


def test_the_operator_is_given_the_same_rules() -> None:
    assert of_kind(build("cpu"), "PrometheusRule")[0]["spec"]["groups"] == RULES["groups"]
