"""The overlays: kustomize builds them, Kubernetes would accept them, and they fit themselves and the code."""

from collections.abc import Callable

import pytest

from tests.deploy import checks
from tests.deploy.manifests import OVERLAYS, Object, build, of_kind, one

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
    assert checks.port_faults(objects) == []
    assert checks.monitor_faults(objects) == []
    assert checks.name_faults(objects) == []
    assert checks.setting_faults(objects) == []
    assert checks.security_faults(objects) == []


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


@pytest.mark.parametrize(("check", "damage", "expected"), FAULTS)
def test_a_seeded_fault_is_caught(check: Callable[[list[Object]], list[str]], damage: Damage, expected: str) -> None:
    objects = build("cpu")
    assert check(objects) == []
    damage(objects)
    assert any(expected in fault for fault in check(objects))


def test_production_overlays_carry_no_secret() -> None:
    assert of_kind([*build("cpu"), *build("gpu")], "Secret") == []


@pytest.mark.parametrize("overlay", ["cpu", "gpu"])
def test_production_asks_for_keys(overlay: str) -> None:
    settings = checks.settings_of(build(overlay))
    assert settings["OVSAM_API_KEYS_FILE"]
    assert float(settings["OVSAM_RATE_PER_SECOND"]) > 0


def test_gpu_overlay_takes_a_gpu_and_keeps_its_engines() -> None:
    pod = one(build("gpu"), "Deployment", "ovsam-triton")["spec"]["template"]["spec"]
    assert pod["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert pod["nodeSelector"] == {"nvidia.com/gpu.present": "true"}
    assert {"name": "tensorrt-cache", "mountPath": "/var/cache/tensorrt"} in pod["containers"][0]["volumeMounts"]


def test_gateway_and_triton_of_the_gpu_overlay_copy_the_same_model() -> None:
    objects = build("gpu")
    copies = [
        one(objects, "Deployment", name)["spec"]["template"]["spec"]["initContainers"][0]
        for name in ("ovsam-gateway", "ovsam-triton")
    ]
    assert copies[0]["args"] == copies[1]["args"]
    assert copies[0]["envFrom"] == copies[1]["envFrom"]
