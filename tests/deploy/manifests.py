"""The Kubernetes objects of each overlay, as kustomize builds them, and ways to look into them."""

import copy
import subprocess
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeAlias

import yaml

Object: TypeAlias = dict[str, Any]

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
OVERLAYS = ("cpu", "cpu-split", "gpu", "gpu-split", "dev")
_WITH_PODS = ("Deployment", "StatefulSet")


def build(overlay: str) -> list[Object]:
    """A fresh copy of the overlay's objects, which a test may damage."""
    return copy.deepcopy(_built(overlay))


@lru_cache
def _built(overlay: str) -> list[Object]:
    return build_folder(DEPLOY / "overlays" / overlay)


def build_folder(folder: Path) -> list[Object]:
    """The objects of any kustomization."""
    command = ["kubectl", "kustomize", str(folder)]
    text = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout
    return list(yaml.load_all(text, Loader=yaml.CSafeLoader))


def of_kind(objects: list[Object], *kinds: str) -> list[Object]:
    return [item for item in objects if item["kind"] in kinds]


def one(objects: list[Object], kind: str, name: str) -> Object:
    found = [item for item in of_kind(objects, kind) if item["metadata"]["name"].startswith(name)]
    assert len(found) == 1, f"{len(found)} objects {kind} {name}"
    return found[0]


def pods(objects: list[Object]) -> Iterator[tuple[str, Object, Object]]:
    """Name, labels and spec of each workload's pods."""
    for item in of_kind(objects, *_WITH_PODS):
        template = item["spec"]["template"]
        yield item["metadata"]["name"], template["metadata"]["labels"], template["spec"]


def containers(pod: Object) -> list[Object]:
    return [*pod.get("initContainers", []), *pod["containers"]]


def label_of(item: Object) -> str:
    return f"{item['kind']}/{item['metadata']['name']}"
