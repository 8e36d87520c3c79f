"""A real Prometheus over the drill's targets, by the committed configuration and rules in shortened times."""

import http.client
import json
import subprocess
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from asking import ADDRESS, DrillFailed, ask, wait_for

ALERTS = Path(__file__).resolve().parents[1] / "alerts"
SCRAPE = "1s"
HASTE = 120  # an alert that waits two minutes waits a second


def hasten(rules: dict[str, Any]) -> dict[str, Any]:
    """The rules with each `for` shortened by HASTE, and nothing else changed."""
    return {
        "groups": [
            group
            | {"rules": [rule | {"for": _sooner(rule["for"])} if "for" in rule else rule for rule in group["rules"]]}
            for group in rules["groups"]
        ]
    }


def _sooner(duration: str) -> str:
    number, unit = int(duration[:-1]), duration[-1]
    return f"{number * {'s': 1, 'm': 60, 'h': 3600}[unit] * 1000 // HASTE}ms"


def configure(folder: Path, *, gateways: list[int], triton: int) -> Path:
    """The committed configuration over the drill's own targets and shortened times."""
    configuration = yaml.safe_load((ALERTS / "prometheus.yml").read_text())
    configuration["global"] = {"scrape_interval": SCRAPE, "scrape_timeout": SCRAPE, "evaluation_interval": SCRAPE}
    targets = {"ovsam-gateway": gateways, "ovsam-triton": [triton]}
    configuration["scrape_configs"] = [
        {
            "job_name": job["job_name"],
            "static_configs": [{"targets": [f"{ADDRESS}:{port}" for port in targets[job["job_name"]]]}],
        }
        for job in configuration["scrape_configs"]
    ]
    (folder / "rules.yaml").write_text(yaml.safe_dump(hasten(yaml.safe_load((ALERTS / "rules.yaml").read_text()))))
    path = folder / "prometheus.yml"
    path.write_text(yaml.safe_dump(configuration))
    return path


@dataclass(frozen=True, slots=True)
class Alerts:
    """What a Prometheus says of its alerts."""

    port: int

    def firing(self) -> set[str]:
        """Names of the alerts that fire now."""
        status, answer = ask(self.port, "GET", "/api/v1/alerts")
        if status != http.client.OK:
            raise DrillFailed(f"Prometheus answers {status}")
        return {
            alert["labels"]["alertname"] for alert in json.loads(answer)["data"]["alerts"] if alert["state"] == "firing"
        }

    def fired(self) -> set[str]:
        """Names of the alerts that have fired at any time."""
        query = urllib.parse.urlencode(
            {"query": 'count by (alertname) (max_over_time(ALERTS{alertstate="firing"}[1h]))'}
        )
        status, answer = ask(self.port, "GET", f"/api/v1/query?{query}")
        if status != http.client.OK:
            raise DrillFailed(f"Prometheus answers {status}")
        return {sample["metric"]["alertname"] for sample in json.loads(answer)["data"]["result"]}


@contextmanager
def prometheus(folder: Path, port: int, configuration: Path) -> Iterator[Alerts]:
    """A real one, over the drill's targets."""
    command = ["prometheus", f"--config.file={configuration}", f"--storage.tsdb.path={folder / 'series'}"]
    with (folder / "prometheus.log").open("wb") as output:
        process = subprocess.Popen(
            [*command, f"--web.listen-address={ADDRESS}:{port}"], stdout=output, stderr=subprocess.STDOUT
        )
    try:
        alerts = Alerts(port)
        wait_for("Prometheus answers", lambda: ask(port, "GET", "/-/ready")[0] == http.client.OK)
        yield alerts
    finally:
        process.terminate()
        process.wait(20)
