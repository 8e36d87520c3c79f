"""docker-compose.yml: it parses, and what it names exists in the Dockerfile, the repository and the code."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from service.settings import Settings
from service.settings_page import variable
from tests.deploy.dockerfile import read_stages
from tests.deploy.manifests import ROOT, build, one

Compose = dict[str, Any]


def _read() -> Compose:
    parsed: Compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    return parsed


def _schema(path: Path) -> "subprocess.CompletedProcess[str]":
    """Against the Compose specification's own schema."""
    tool = Path(sys.executable).with_name("check-jsonschema")
    command = [str(tool), "--builtin-schema", "vendor.compose-spec", str(path)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def test_it_is_what_the_compose_specification_says() -> None:
    done = _schema(ROOT / "docker-compose.yml")
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("healthcheck:", "helthcheck:"),
        ("condition: service_healthy", "condition: healthy"),
        ("cap_drop: [ALL]", "cap_drop: ALL"),
    ],
)
def test_what_the_specification_does_not_know_is_caught(tmp_path: Path, old: str, new: str) -> None:
    text = (ROOT / "docker-compose.yml").read_text()
    assert old in text
    damaged = tmp_path / "docker-compose.yml"
    damaged.write_text(text.replace(old, new))
    done = _schema(damaged)
    assert done.returncode == 1
    assert "Schema validation errors" in done.stdout


def _faults(compose: Compose) -> list[str]:
    services: dict[str, Any] = compose["services"]
    stages = read_stages((ROOT / "Dockerfile").read_text())
    fields = {variable(name) for name in Settings.model_fields}
    faults = []
    for name, service in services.items():
        if "build" in service and service["build"]["target"] not in stages:
            faults.append(f"{name} builds no target")
        if "image" not in service or ("build" not in service and not _is_pinned(service["image"])):
            faults.append(f"{name} has no pinned image")
        own = {key for key in service.get("environment", {}) if key.startswith("OVSAM_")}
        faults += [f"{name}: {key} is no setting" for key in own - fields]
        faults += [f"{name} waits for {other}" for other in service.get("depends_on", {}) if other not in services]
        faults += [f"{name}: {fault}" for fault in _volume_faults(service, compose["volumes"])]
        if not service.get("read_only") or service.get("cap_drop") != ["ALL"]:
            faults.append(f"{name} is not hardened")
        faults += [f"{name} listens to the world" for port in service.get("ports", []) if not port.startswith("127.")]
    return faults


def _is_pinned(image: str) -> bool:
    return image.startswith("${TRITON_IMAGE") or image.rpartition(":")[2] not in {"", "latest", image}


def _volume_faults(service: dict[str, Any], named: dict[str, Any]) -> list[str]:
    faults = []
    for volume in service.get("volumes", []):
        source = volume.replace("${MODEL_REPOSITORY:-./model_repository}", "./model_repository").split(":")[0]
        if source.startswith("./") and not (ROOT / source).exists():
            faults.append(f"mounts {source}")
        if not source.startswith("./") and source not in named:
            faults.append(f"mounts a volume {source}")
    return faults


def test_it_fits_the_repository() -> None:
    assert _faults(_read()) == []


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (lambda services: services["gateway"]["build"].update(target="servce"), "gateway builds no target"),
        (lambda services: services["redis"].update(image="redis:latest"), "redis has no pinned image"),
        (lambda services: services["gateway"]["environment"].update(OVSAM_REDIS="x"), "OVSAM_REDIS is no setting"),
        (lambda services: services["gateway"]["depends_on"].update(cache={}), "gateway waits for cache"),
        (lambda services: services["redis"]["volumes"].append("./deploy/redis.conf:/x"), "mounts ./deploy/redis.conf"),
        (lambda services: services["grafana"]["volumes"].append("lost:/x"), "mounts a volume lost"),
        (lambda services: services["triton-cpu"].update(read_only=False), "triton-cpu is not hardened"),
        (lambda services: services["gateway"]["ports"].append("8000:8000"), "gateway listens to the world"),
    ],
)
def test_a_seeded_fault_is_caught(damage: Callable[[dict[str, Any]], object], expected: str) -> None:
    compose = _read()
    damage(compose["services"])
    assert any(expected in fault for fault in _faults(compose))


def test_profiles_choose_the_triton_and_nothing_else() -> None:
    services = _read()["services"]
    profiles = {name: service["profiles"] for name, service in services.items() if "profiles" in service}
    assert profiles == {"triton-cpu": ["cpu"], "triton-gpu": ["gpu"]}
    assert set(services) - set(profiles) == {"gateway", "redis", "prometheus", "grafana"}
    assert all(services[name]["networks"]["default"]["aliases"] == ["triton"] for name in profiles)
    waited = {name: wait.get("required") for name, wait in services["gateway"]["depends_on"].items()}
    assert waited == {"redis": None, "triton-cpu": False, "triton-gpu": False}


@pytest.mark.parametrize("kind", ["cpu", "gpu"])
def test_triton_is_started_as_in_kubernetes(kind: str) -> None:
    """But for the ports, which are Triton's own."""
    service = _read()["services"][f"triton-{kind}"]
    pod = one(build(kind), "Deployment", "ovsam-triton")["spec"]["template"]["spec"]
    flags = [flag for flag in pod["containers"][0]["args"] if "-port=" not in flag]
    assert service["entrypoint"] + service.get("command", []) == ["tritonserver", *flags]
