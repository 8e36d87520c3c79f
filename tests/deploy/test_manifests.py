"""The overlays: kustomize builds them, Kubernetes would accept them, and they fit themselves and the code."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from service.core.spec import MODEL_NAMES
from tests.deploy import checks, triton_checks
from tests.deploy.manifests import DEPLOY, OVERLAYS, Object, build, build_folder, of_kind, one

VERSIONS = ("1.32.0", "1.33.0", "1.34.0")
Damage = Callable[[list[Object]], object]


@pytest.mark.parametrize("overlay", OVERLAYS)
@pytest.mark.parametrize("version", VERSIONS)
def test_schema(overlay: str, version: str) -> None:
    assert checks.schema_faults(build(overlay), version) == []


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_cross_references(overlay: str) -> None:
    objects = build(overlay)
    assert checks.selector_faults(objects) == []
    assert checks.overlap_faults(objects) == []
    assert triton_checks.model_faults(objects) == []
    assert checks.port_faults(objects) == []
    assert checks.monitor_faults(objects) == []
    assert checks.name_faults(objects) == []
    assert checks.setting_faults(objects) == []
    assert checks.security_faults(objects) == []


@pytest.mark.parametrize("overlay", ["cpu", "gpu-split"])
def test_a_model_is_rolled_out_in_a_namespace_of_its_own(overlay: str, tmp_path: Path) -> None:
    """What deploy/README.md tells to write: nothing of the copy reaches into the namespace of the old one."""
    layer = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "namespace": "ovsam-71916b0d",
        "resources": [os.path.relpath(DEPLOY / "overlays" / overlay, tmp_path)],
        "patches": [
            {
                "target": {"kind": "Ingress"},
                "patch": yaml.safe_dump([{"op": "replace", "path": "/spec/rules/0/host", "value": "next.example.org"}]),
            }
        ],
    }
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(layer))
    objects = build_folder(tmp_path)
    homes = {item["metadata"].get("namespace", item["metadata"]["name"]) for item in objects}
    assert homes == {"ovsam-71916b0d"}
    assert {rule["host"] for item in of_kind(objects, "Ingress") for rule in item["spec"]["rules"]} == {
        "next.example.org"
    }
    assert "ovsam.svc" not in yaml.safe_dump(objects)
    assert checks.selector_faults(objects) == []
    assert checks.name_faults(objects) == []
    assert checks.setting_faults(objects) == []


def _gateway(objects: list[Object]) -> Object:
    deployment: Object = one(objects, "Deployment", "ovsam-gateway")["spec"]
    return deployment


def _container(objects: list[Object]) -> Object:
    container: Object = _gateway(objects)["template"]["spec"]["containers"][0]
    return container


def _secret_volume(objects: list[Object]) -> Object:
    volumes = _gateway(objects)["template"]["spec"]["volumes"]
    secret: Object = next(volume["secret"] for volume in volumes if "secret" in volume)
    return secret


def _schema(objects: list[Object]) -> list[str]:
    return checks.schema_faults(objects, VERSIONS[-1])


FAULTS: list[tuple[Callable[[list[Object]], list[str]], Damage, str]] = [
    (_schema, lambda objects: _container(objects).update(replicaz=1), "Deployment/ovsam-gateway"),
    (_schema, lambda objects: _gateway(objects).update(minReadySeconds="soon"), "Deployment/ovsam-gateway"),
    (_schema, lambda objects: of_kind(objects, "PrometheusRule")[0]["spec"].update(group=[]), "PrometheusRule"),
    (
        _schema,
        lambda objects: of_kind(objects, "ServiceMonitor")[0]["spec"]["endpoints"][0].pop("port"),
        "ServiceMonitor",
    ),
    (
        checks.selector_faults,
        lambda objects: one(objects, "Service", "ovsam-triton")["spec"]["selector"].update(app="other"),
        "Service/ovsam-triton selects nothing",
    ),
    (
        checks.selector_faults,
        lambda objects: _gateway(objects)["template"]["metadata"]["labels"].pop("app.kubernetes.io/name"),
        "NetworkPolicy/ovsam-gateway selects nothing",
    ),
    (checks.port_faults, lambda objects: _container(objects)["ports"].pop(), "leads to port metrics"),
    (checks.port_faults, lambda objects: _container(objects)["ports"].pop(0), "a probe asks port http"),
    (
        checks.port_faults,
        lambda objects: one(objects, "Service", "ovsam-gateway")["spec"]["ports"].pop(1),
        "Ingress/ovsam-grpc leads to",
    ),
    (
        checks.port_faults,
        lambda objects: one(objects, "Service", "ovsam-gateway")["spec"]["ports"].pop(),
        "ServiceMonitor/ovsam-gateway reads",
    ),
    (
        checks.monitor_faults,
        lambda objects: of_kind(objects, "NetworkPolicy")[1]["spec"]["ingress"].pop(),
        "ServiceMonitor/ovsam-gateway: Prometheus may not reach port metrics",
    ),
    (
        checks.setting_faults,
        lambda objects: checks.settings_of(objects).update(OVSAM_METRICS_PORT="0"),
        "listens on other ports",
    ),
    (
        checks.name_faults,
        lambda objects: _container(objects)["volumeMounts"][0].update(name="lost"),
        "ovsam-gateway mounts lost",
    ),
    (
        checks.name_faults,
        lambda objects: objects.remove(one(objects, "ConfigMap", "ovsam-settings")),
        "names ConfigMap ovsam-settings",
    ),
    (
        checks.name_faults,
        lambda objects: _secret_volume(objects).update(secretName="lost"),
        "names Secret lost",
    ),
    (
        checks.setting_faults,
        lambda objects: checks.settings_of(objects).update(OVSAM_API_KEYS_FILE="/etc/keys"),
        "OVSAM_API_KEYS_FILE lies in no volume",
    ),
    (checks.name_faults, lambda objects: _gateway(objects).update(replicas=3), "is scaled and sets replicas"),
    (
        checks.name_faults,
        lambda objects: objects.append(one(objects, "HorizontalPodAutoscaler", "ovsam-gateway")),
        "has two scalers",
    ),
    (
        checks.setting_faults,
        lambda objects: checks.settings_of(objects).update(OVSAM_MAX_PROMTS="1"),
        "OVSAM_MAX_PROMTS is no setting",
    ),
    (
        checks.setting_faults,
        lambda objects: checks.settings_of(objects).pop("OVSAM_MAX_NAMES"),
        "OVSAM_MAX_NAMES is a setting that nobody decided on",
    ),
    (
        checks.setting_faults,
        lambda objects: checks.settings_of(objects).update(OVSAM_LOG_LEVEL="loud"),
        "a value is refused: ('log_level',)",
    ),
    (
        checks.setting_faults,
        lambda objects: checks.settings_of(objects).update(OVSAM_TRITON_URL="triton:8001"),
        "OVSAM_TRITON_URL names triton:8001",
    ),
    (
        checks.setting_faults,
        lambda objects: checks.settings_of(objects).update(OVSAM_REQUEST_SECONDS="60"),
        "killed before it has drained",
    ),
    (
        checks.setting_faults,
        lambda objects: checks.settings_of(objects).update(OVSAM_DRAIN_SECONDS="5"),
        "ends before Kubernetes has seen",
    ),
    (
        checks.setting_faults,
        lambda objects: checks.settings_of(objects).update(OVSAM_GRPC_PORT="9001"),
        "listens on other ports",
    ),
    (
        checks.setting_faults,
        lambda objects: checks.settings_of(objects).update(OVSAM_TLS_CERT="/var/cache/ovsam/tls.crt"),
        "livenessProbe does not speak HTTPS",
    ),
    (
        checks.setting_faults,
        lambda objects: _container(objects)["readinessProbe"]["httpGet"].update(scheme="HTTPS"),
        "readinessProbe does not speak HTTP",
    ),
    (checks.security_faults, lambda objects: _container(objects).pop("securityContext"), "gateway is not restricted"),
    (
        checks.security_faults,
        lambda objects: _gateway(objects)["template"]["metadata"]["labels"].pop("app.kubernetes.io/part-of"),
        "not under the policy",
    ),
]


def _triton_flags(objects: list[Object], half: str) -> list[str]:
    pod = one(objects, "Deployment", f"ovsam-triton-{half}")["spec"]["template"]["spec"]
    flags: list[str] = pod["containers"][0]["args"]
    return flags


SPLIT_FAULTS: list[tuple[Callable[[list[Object]], list[str]], Damage, str]] = [
    (
        triton_checks.model_faults,
        lambda objects: _triton_flags(objects, "decoder").remove("--load-model=region_encoder"),
        "ovsam-triton-decoder is asked for region_encoder",
    ),
    (
        triton_checks.model_faults,
        lambda objects: checks.settings_of(objects).update(OVSAM_TRITON_ENCODER_URL=""),
        "ovsam-triton-decoder is asked for image_encoder",
    ),
    (
        checks.overlap_faults,
        lambda objects: one(objects, "PodDisruptionBudget", "ovsam-triton-encoder")["spec"]["selector"][
            "matchLabels"
        ].pop("app.kubernetes.io/component"),
        "ovsam-triton-encoder selects pods of ovsam-triton-decoder and ovsam-triton-encoder",
    ),
    (
        checks.setting_faults,
        lambda objects: checks.settings_of(objects).update(OVSAM_TRITON_ENCODER_URL="ovsam-triton:8001"),
        "OVSAM_TRITON_ENCODER_URL names ovsam-triton:8001",
    ),
    (
        checks.name_faults,
        lambda objects: objects.remove(one(objects, "Deployment", "ovsam-triton-encoder")),
        "ovsam-triton-encoder is scaled and does not exist",
    ),
    (
        checks.port_faults,
        lambda objects: one(objects, "Service", "ovsam-triton-encoder")["spec"]["ports"].pop(),
        "ServiceMonitor/ovsam-triton reads",
    ),
]
SEEDED = [("cpu", *fault) for fault in FAULTS] + [
    (overlay, *fault) for overlay in ("cpu-split", "gpu-split") for fault in SPLIT_FAULTS
]


@pytest.mark.parametrize(("overlay", "check", "damage", "expected"), SEEDED)
def test_a_seeded_fault_is_caught(
    overlay: str, check: Callable[[list[Object]], list[str]], damage: Damage, expected: str
) -> None:
    objects = build(overlay)
    assert check(objects) == []
    damage(objects)
    assert any(expected in fault for fault in check(objects))


PRODUCTION = [overlay for overlay in OVERLAYS if overlay != "dev"]


@pytest.mark.parametrize("overlay", PRODUCTION)
def test_production_overlays_carry_no_secret(overlay: str) -> None:
    assert of_kind(build(overlay), "Secret") == []


@pytest.mark.parametrize("overlay", PRODUCTION)
def test_production_asks_for_keys(overlay: str) -> None:
    settings = checks.settings_of(build(overlay))
    assert settings["OVSAM_API_KEYS_FILE"]
    assert float(settings["OVSAM_RATE_PER_SECOND"]) > 0


def _tritons(overlay: str) -> list[Object]:
    """The pods' specs."""
    deployments = of_kind(build(overlay), "Deployment")
    return [
        item["spec"]["template"]["spec"] for item in deployments if item["metadata"]["name"].startswith("ovsam-triton")
    ]


GPU_OVERLAYS = [("gpu", 1), ("gpu-split", 2)]


@pytest.mark.parametrize(("overlay", "count"), GPU_OVERLAYS)
def test_each_triton_of_a_gpu_overlay_takes_a_gpu_and_keeps_its_engines(overlay: str, count: int) -> None:
    tritons = _tritons(overlay)
    assert len(tritons) == count
    for pod in tritons:
        container = pod["containers"][0]
        assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"
        assert pod["nodeSelector"] == {"nvidia.com/gpu.present": "true"}
        assert any(mount["name"] == "tensorrt-cache" for mount in container["volumeMounts"])
        assert triton_checks.gpu_faults(pod) == []


GPU_FAULTS: list[tuple[Callable[[Object], object], str]] = [
    (lambda container: container["args"].remove("--model-config-name=gpu"), "has no None.pbtxt"),
    (lambda container: container["args"].remove("--rate-limit=execution_count"), "executions of image_encoder are not"),
    (lambda container: container["volumeMounts"].clear(), "engines of image_encoder lie in no volume"),
]


@pytest.mark.parametrize(("damage", "expected"), GPU_FAULTS)
def test_a_seeded_fault_of_a_gpu_server_is_caught(damage: Callable[[Object], object], expected: str) -> None:
    (pod,) = _tritons("gpu")
    damage(pod["containers"][0])
    assert any(expected in fault for fault in triton_checks.gpu_faults(pod))


@pytest.mark.parametrize(("overlay", "count"), GPU_OVERLAYS)
def test_gateway_and_triton_of_a_gpu_overlay_copy_the_same_model(overlay: str, count: int) -> None:
    gateway = one(build(overlay), "Deployment", "ovsam-gateway")["spec"]["template"]["spec"]["initContainers"][0]
    copies = [pod["initContainers"][0] for pod in _tritons(overlay)]
    assert [(copy["args"], copy["envFrom"]) for copy in copies] == [(gateway["args"], gateway["envFrom"])] * count


@pytest.mark.parametrize(
    ("overlay", "scaler"), [("cpu-split", "HorizontalPodAutoscaler"), ("gpu-split", "ScaledObject")]
)
def test_encoder_and_decoder_scale_apart(overlay: str, scaler: str) -> None:
    """One scaler each, on what each of them alone is short of."""
    scalers = {item["metadata"]["name"]: yaml.safe_dump(item["spec"]) for item in of_kind(build(overlay), scaler)}
    assert set(scalers) == {"ovsam-gateway", "ovsam-triton-encoder", "ovsam-triton-decoder"}
    for half, model in (("encoder", "image_encoder"), ("decoder", "prompt_decoder")):
        named = {name for name in MODEL_NAMES if name in scalers[f"ovsam-triton-{half}"]}
        assert named == {model}
