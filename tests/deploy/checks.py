"""What must hold between the objects of an overlay; each check returns the faults it finds, in words."""

import json
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import jsonschema
import kubernetes_validate  # type: ignore[import-untyped]  # it carries no types
from pydantic import ValidationError

from service.settings import Settings
from service.settings_page import variable
from tests.deploy.manifests import ROOT, Object, containers, label_of, of_kind, one, pods

EXTERNAL_SECRETS = {
    "ovsam-secrets",
    "ovsam-api-keys",
    "ovsam-object-storage",
    "ovsam-tls",
}  # made by the operator, not in git
LEFT_OUT: dict[str, str] = {}  # settings that the manifests leave at their default, with the reason
_MONITORING = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}
_OWN_SECONDS = 5  # the server's, beside the request it waits for


@lru_cache
def _custom_schemas() -> dict[str, Any]:
    schemas: dict[str, Any] = json.loads((ROOT / "tests/deploy/custom_resources.json").read_text())
    return schemas


def schema_faults(objects: list[Object], version: str) -> list[str]:
    """Against Kubernetes' own schemas, strictly; custom resources against the fields that we use of them."""
    faults = []
    for item in objects:
        custom = _custom_schemas().get(f"{item['apiVersion']}/{item['kind']}")
        try:
            if custom:
                jsonschema.validate(item, custom)
            else:
                kubernetes_validate.validate(item, version, strict=True)
        except (jsonschema.ValidationError, kubernetes_validate.SchemaNotFoundError) as error:
            faults.append(f"{label_of(item)}: {str(error).splitlines()[0]}")
    return faults


def selector_faults(objects: list[Object]) -> list[str]:
    """Whatever selects pods selects some, and a monitor selects a service."""
    labels = [found for _, found, _ in pods(objects)]
    services = [item["metadata"]["labels"] for item in of_kind(objects, "Service")]
    return [
        f"{label_of(item)} selects nothing: {selector}"
        for item in objects
        for selector in _selectors(item)
        if not any(matches(selector, found) for found in (services if item["kind"] == "ServiceMonitor" else labels))
    ]


def overlap_faults(objects: list[Object]) -> list[str]:
    """Whatever owns, spares or addresses pods does so for those of one workload alone."""
    faults = []
    for item in of_kind(objects, "Deployment", "StatefulSet", "PodDisruptionBudget", "Service"):
        selector = next(_selectors(item))
        chosen = [name for name, found, _ in pods(objects) if matches(selector, found)]
        if len(chosen) > 1:
            faults.append(f"{label_of(item)} selects pods of {' and '.join(sorted(chosen))}")
    return faults


def _selectors(item: Object) -> Iterator[Object]:
    spec = item.get("spec", {})
    if item["kind"] == "Service":
        yield {"matchLabels": spec["selector"]}
    elif item["kind"] == "NetworkPolicy":
        yield spec["podSelector"]
        peers = [*spec.get("ingress", []), *spec.get("egress", [])]
        for peer in (peer for rule in peers for peer in [*rule.get("from", []), *rule.get("to", [])]):
            if "namespaceSelector" not in peer:
                yield peer["podSelector"]
    elif "selector" in spec:
        yield spec["selector"]
    for constraint in spec.get("template", {}).get("spec", {}).get("topologySpreadConstraints", []):
        yield constraint["labelSelector"]


def matches(selector: Object, labels: Object) -> bool:
    """Whether a label selector of Kubernetes takes these labels."""
    wanted = all(labels.get(key) == value for key, value in selector.get("matchLabels", {}).items())
    return wanted and all(labels.get(term["key"]) in term["values"] for term in selector.get("matchExpressions", []))


def port_faults(objects: list[Object]) -> list[str]:
    """Services, probes, ingresses and monitors name ports that exist."""
    faults = []
    for name, _, pod in pods(objects):
        for container in containers(pod):
            ports = {port["name"] for port in container.get("ports", [])}
            probes = [value for key, value in container.items() if key.endswith("Probe")]
            used = {(probe.get("httpGet") or probe["tcpSocket"])["port"] for probe in probes}
            faults += [f"{name}: a probe asks port {port}" for port in used - ports]
    for service in of_kind(objects, "Service"):
        chosen = [
            spec for _, labels, spec in pods(objects) if matches({"matchLabels": service["spec"]["selector"]}, labels)
        ]
        ports = {port["name"] for spec in chosen for one in spec["containers"] for port in one["ports"]}
        targets = {port["targetPort"] for port in service["spec"]["ports"]}
        faults += [f"{label_of(service)} leads to port {port}" for port in targets - ports]
    offered = {
        (service["metadata"]["name"], port["name"])
        for service in of_kind(objects, "Service")
        for port in service["spec"]["ports"]
    }
    for ingress in of_kind(objects, "Ingress"):
        backends = [path["backend"]["service"] for rule in ingress["spec"]["rules"] for path in rule["http"]["paths"]]
        used_ports = {(backend["name"], backend["port"]["name"]) for backend in backends}
        faults += [f"{label_of(ingress)} leads to {backend}" for backend in used_ports - offered]
    for monitor in of_kind(objects, "ServiceMonitor"):
        wanted = {
            (service["metadata"]["name"], endpoint["port"])
            for service in _monitored(objects, monitor)
            for endpoint in monitor["spec"]["endpoints"]
        }
        faults += [f"{label_of(monitor)} reads {port}" for port in wanted - offered]
    return faults


def _monitored(objects: list[Object], monitor: Object) -> list[Object]:
    services = of_kind(objects, "Service")
    return [item for item in services if matches(monitor["spec"]["selector"], item["metadata"]["labels"])]


def monitor_faults(objects: list[Object]) -> list[str]:
    """Each port that a monitor reads is open to Prometheus' namespace."""
    faults = []
    monitored = [
        (monitor, service) for monitor in of_kind(objects, "ServiceMonitor") for service in _monitored(objects, monitor)
    ]
    for monitor, service in monitored:
        labels = service["spec"]["selector"]
        targets = {port["name"]: port["targetPort"] for port in service["spec"]["ports"]}
        rules = [
            rule
            for policy in of_kind(objects, "NetworkPolicy")
            if matches(policy["spec"]["podSelector"], labels)
            for rule in policy["spec"].get("ingress", [])
        ]
        opened = {port["port"] for rule in rules for port in rule["ports"] if _MONITORING in rule["from"]}
        wanted = {targets.get(endpoint["port"]) for endpoint in monitor["spec"]["endpoints"]}
        faults += [f"{label_of(monitor)}: Prometheus may not reach port {port}" for port in wanted - opened]
    return faults


def name_faults(objects: list[Object]) -> list[str]:
    """Configuration, secrets, claims, volumes, accounts and scaled workloads that are named exist."""
    known = {(item["kind"], item["metadata"]["name"]) for item in objects}
    known |= {("Secret", name) for name in EXTERNAL_SECRETS}
    faults = []
    for name, _, pod in pods(objects):
        claims = one(objects, "StatefulSet", name)["spec"]["volumeClaimTemplates"] if _stateful(objects, name) else []
        volumes = {
            item["name"] for item in [*pod.get("volumes", []), *({"name": c["metadata"]["name"]} for c in claims)]
        }
        mounts = {mount["name"] for container in containers(pod) for mount in container.get("volumeMounts", [])}
        faults += [f"{name} mounts {mount}" for mount in mounts - volumes]
        faults += [f"{name} names {kind} {target}" for kind, target in set(_named(pod)) - known]
    scaled = [
        item["spec"]["scaleTargetRef"]["name"] for item in of_kind(objects, "HorizontalPodAutoscaler", "ScaledObject")
    ]
    faults += [f"{target} is scaled and does not exist" for target in scaled if ("Deployment", target) not in known]
    faults += [f"{target} has two scalers" for target in set(scaled) if scaled.count(target) > 1]
    replicas = {item["metadata"]["name"] for item in of_kind(objects, "Deployment") if "replicas" in item["spec"]}
    return faults + [f"{target} is scaled and sets replicas" for target in replicas & set(scaled)]


def _stateful(objects: list[Object], name: str) -> bool:
    return any(item["metadata"]["name"] == name for item in of_kind(objects, "StatefulSet"))


def _named(pod: Object) -> Iterator[tuple[str, str]]:
    yield "ServiceAccount", pod["serviceAccountName"]
    for volume in pod.get("volumes", []):
        if "configMap" in volume:
            yield "ConfigMap", volume["configMap"]["name"]
        if "secret" in volume:
            yield "Secret", volume["secret"]["secretName"]
        if "persistentVolumeClaim" in volume:
            yield "PersistentVolumeClaim", volume["persistentVolumeClaim"]["claimName"]
    for container in containers(pod):
        for source in container.get("envFrom", []):
            for key, kind in (("configMapRef", "ConfigMap"), ("secretRef", "Secret")):
                if key in source:
                    yield kind, source[key]["name"]
        for entry in container.get("env", []):
            yield "Secret", entry["valueFrom"]["secretKeyRef"]["name"]


def setting_faults(objects: list[Object]) -> list[str]:
    """The gateway's environment and Settings name the same things, its values are accepted and fit the manifests."""
    environment = settings_of(objects)
    gateway = one(objects, "Deployment", "ovsam-gateway")["spec"]["template"]["spec"]
    secret = {entry["name"] for entry in gateway["containers"][0]["env"]}
    fields = {variable(name) for name in Settings.model_fields}
    given = environment.keys() | secret
    faults = [f"{name} is no setting" for name in given - fields]
    faults += [f"{name} is a setting that nobody decided on" for name in fields - given - LEFT_OUT.keys()]
    mounts = [f"{mount['mountPath']}/" for mount in gateway["containers"][0]["volumeMounts"]]
    files = {name for name in environment.keys() & fields if Settings.model_fields[_field(name)].default is None}
    faults += [
        f"{name} lies in no volume"
        for name in files
        if environment[name] and not environment[name].startswith(tuple(mounts))
    ]
    try:  # without files, which have to be there and are not here
        settings = Settings.model_validate(
            {_field(name): environment[name] for name in (environment.keys() & fields) - files}
        )
    except ValidationError as error:
        return [*faults, f"a value is refused: {error.errors()[0]['loc']}"]
    services = {
        f"{item['metadata']['name']}:{port['port']}"
        for item in of_kind(objects, "Service")
        for port in item["spec"]["ports"]
    }
    for name, urls in (("URL", settings.triton_urls), ("ENCODER_URL", settings.triton_encoder_urls)):
        faults += [f"OVSAM_TRITON_{name} names {url}" for url in urls if url not in services]
    if gateway["terminationGracePeriodSeconds"] < settings.drain_seconds + settings.request_seconds + _OWN_SECONDS:
        faults.append("a gateway is killed before it has drained")
    ready = gateway["containers"][0]["readinessProbe"]
    if ready["periodSeconds"] * ready["failureThreshold"] > settings.drain_seconds:
        faults.append("a gateway ends before Kubernetes has seen that it is not ready")
    ports = {port["name"]: port["containerPort"] for port in gateway["containers"][0]["ports"]}
    if ports != {"http": settings.port, "grpc": settings.grpc_port, "metrics": settings.metrics_port}:
        faults.append("the gateway listens on other ports than its container names")
    scheme = "HTTPS" if environment.get("OVSAM_TLS_CERT") else "HTTP"
    probes = {name: probe for name, probe in gateway["containers"][0].items() if name.endswith("Probe")}
    faults += [f"{name} does not speak {scheme}" for name, probe in probes.items() if _scheme(probe) != scheme]
    return faults


def _scheme(probe: Object) -> str:
    scheme: str = probe["httpGet"].get("scheme", "HTTP")
    return scheme


def _field(variable_name: str) -> str:
    return variable_name.removeprefix("OVSAM_").lower()


def settings_of(objects: list[Object]) -> dict[str, str]:
    """The gateway's settings from the ConfigMap."""
    values: dict[str, str] = one(objects, "ConfigMap", "ovsam-settings")["data"]
    return values


def security_faults(objects: list[Object]) -> list[str]:
    """Every pod keeps to the restricted profile, and its root file system cannot be written."""
    faults = []
    for name, labels, pod in pods(objects):
        context = pod["securityContext"]
        if not context.get("runAsNonRoot") or context.get("seccompProfile", {}).get("type") != "RuntimeDefault":
            faults.append(f"{name} may run as root or without seccomp")
        if pod.get("automountServiceAccountToken") is not False:
            faults.append(f"{name} is given a token of the cluster")
        if labels.get("app.kubernetes.io/part-of") != "ovsam":
            faults.append(f"{name} is not under the policy that denies everything")
        for container in containers(pod):
            own = container.get("securityContext", {})
            wanted = {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            if own != wanted:
                faults.append(f"{name}/{container['name']} is not restricted")
            if "memory" not in container.get("resources", {}).get("limits", {}):
                faults.append(f"{name}/{container['name']} has no limit of memory")
    return faults
