"""Faults seeded where kustomize itself, a pod's security or a scaler's target must catch them."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.deploy import checks
from tests.deploy.manifests import DEPLOY, Object, build, of_kind, one


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("base/kustomization.yaml", "- gateway.yaml", "- gatewy.yaml"),
        ("base/gateway.yaml", "  replicas: 2", "  replicas: [2"),
        ("components/api-keys/gateway.yaml", "name: ovsam-gateway", "name: ovsam-gatway"),
        ("components/api-keys/kustomization.yaml", "behavior: merge", "behavior: create"),
    ],
)
def test_kustomize_refuses_what_does_not_fit_together(tmp_path: Path, file: str, old: str, new: str) -> None:
    for folder in ("base", "components", "overlays", "alerts"):
        shutil.copytree(DEPLOY / folder, tmp_path / folder)
    damaged = tmp_path / file
    assert old in damaged.read_text()
    command = ["kubectl", "kustomize", str(tmp_path / "overlays" / "cpu")]
    whole = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert whole.returncode == 0, whole.stderr
    damaged.write_text(damaged.read_text().replace(old, new, 1))
    assert subprocess.run(command, capture_output=True, text=True, check=False, timeout=60).returncode != 0


def _pod(objects: list[Object]) -> Object:
    pod: Object = one(objects, "Deployment", "ovsam-gateway")["spec"]["template"]["spec"]
    return pod


@pytest.mark.parametrize(
    ("check", "damage", "fault"),
    [
        (
            checks.security_faults,
            lambda objects: _pod(objects)["securityContext"].update(runAsNonRoot=False),
            "ovsam-gateway may run as root or without seccomp",
        ),
        (
            checks.security_faults,
            lambda objects: _pod(objects)["securityContext"].pop("seccompProfile"),
            "ovsam-gateway may run as root or without seccomp",
        ),
        (
            checks.security_faults,
            lambda objects: _pod(objects).update(automountServiceAccountToken=True),
            "ovsam-gateway is given a token of the cluster",
        ),
        (
            checks.security_faults,
            lambda objects: _pod(objects)["containers"][0]["securityContext"].update(readOnlyRootFilesystem=False),
            "ovsam-gateway/gateway is not restricted",
        ),
        (
            checks.security_faults,
            lambda objects: _pod(objects)["containers"][0]["resources"]["limits"].pop("memory"),
            "ovsam-gateway/gateway has no limit of memory",
        ),
        (
            checks.name_faults,
            lambda objects: of_kind(objects, "HorizontalPodAutoscaler")[0]["spec"]["scaleTargetRef"].update(
                name="lost"
            ),
            "lost is scaled and does not exist",
        ),
        (
            checks.name_faults,
            lambda objects: _pod(objects).update(serviceAccountName="lost"),
            "ovsam-gateway names ServiceAccount lost",
        ),
    ],
)
def test_a_seeded_fault_is_caught(
    check: Callable[[list[Object]], list[str]], damage: Callable[[list[Object]], object], fault: str
) -> None:
    objects = build("cpu")
    assert check(objects) == []
    damage(objects)
    assert fault in check(objects)
