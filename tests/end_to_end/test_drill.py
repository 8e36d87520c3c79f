"""The operator's drill as an operator starts it, and what it may change of the alerts."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.end_to_end.triton_server import ROOT
from tests.ports import free_ports

DRILL = ROOT / "deploy" / "drill"
RULES = ROOT / "deploy" / "alerts" / "rules.yaml"


@pytest.fixture
def watching(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(DRILL))
    spec = importlib.util.spec_from_file_location("watching", DRILL / "watching.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "watching", module)
    spec.loader.exec_module(module)
    return module


def test_only_waiting_times_are_shortened(watching: Any) -> None:
    rules = yaml.safe_load(RULES.read_text())
    hastened = watching.hasten(rules)
    pairs = [
        (ours, theirs)
        for group, other in zip(rules["groups"], hastened["groups"], strict=True)
        for ours, theirs in zip(group["rules"], other["rules"], strict=True)
    ]
    assert [{**ours, "for": ""} for ours, _ in pairs] == [{**theirs, "for": ""} for _, theirs in pairs]
    waits = {theirs["for"] for ours, theirs in pairs if ours.get("for") == "3m"}
    assert waits == {"1500ms"}


def test_prometheus_accepts_what_the_drill_writes(watching: Any, tmp_path: Path) -> None:
    path = watching.configure(tmp_path, gateways=[1, 2], triton=3)
    done = subprocess.run(
        ["promtool", "check", "config", str(path)], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    jobs = {job["job_name"]: job["static_configs"][0] for job in yaml.safe_load(path.read_text())["scrape_configs"]}
    assert jobs["ovsam-gateway"] == {"targets": ["127.0.0.1:1", "127.0.0.1:2"]}


def test_the_right_alerts_ring_nothing_is_lost_and_all_recovers(tmp_path: Path) -> None:
    """Redis, Triton and a gateway are killed under load; a busy machine makes it slow, not wrong."""
    command = [
        sys.executable,
        str(DRILL / "drill.py"),
        "--folder",
        str(tmp_path),
        "--port",
        str(free_ports(31)),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=900)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert set(report["rang"]) >= {"OvsamRedisFaults", "OvsamTritonDown", "OvsamBackendUnavailable", "OvsamGatewayDown"}
    assert not set(report["rang"]) & {"OvsamInternalErrors", "OvsamCorruptEmbeddings"}
    assert report["answered"] > 20
    assert report["sent again"], "no blow was felt"
    print(json.dumps(report, indent=2))
