"""What must hold between the gateways' settings, Triton's flags and the model's configurations."""

from collections.abc import Iterator

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from service.adapters.split_backend import ENCODER, OTHERS
from service.core.spec import MODEL_NAMES
from tests.deploy.checks import matches, settings_of
from tests.deploy.manifests import ROOT, Object, of_kind, pods


def model_faults(objects: list[Object]) -> list[str]:
    """Each Triton loads the models that the gateways ask of its address."""
    settings = settings_of(objects)
    address, encoder = settings["OVSAM_TRITON_URL"], settings["OVSAM_TRITON_ENCODER_URL"]
    asked = [(encoder or address, (ENCODER,)), (address, OTHERS)] if address else []
    faults = []
    for url, models in asked:
        for name, arguments in _servers(objects, service=url.split(":")[0]):
            loaded = {value for flag, value in arguments if flag == "--load-model"}
            if "*" not in loaded:
                faults += [
                    f"{name} is asked for {model} and does not load it" for model in models if model not in loaded
                ]
    return faults


def _servers(objects: list[Object], *, service: str) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """Name and flags of each Triton behind a service."""
    selectors = [
        item["spec"]["selector"] for item in of_kind(objects, "Service") if item["metadata"]["name"] == service
    ]
    for name, labels, pod in pods(objects):
        if any(matches({"matchLabels": selector}, labels) for selector in selectors):
            parts = [argument.partition("=") for argument in pod["containers"][0]["args"]]
            yield name, [(flag, value) for flag, _, value in parts]


def gpu_faults(pod: Object) -> list[str]:
    """The volume for engines lies where gpu.pbtxt puts them; the server limits what executions take, and by it."""
    container = pod["containers"][0]
    mounts = tuple(f"{mount['mountPath']}/" for mount in container["volumeMounts"])
    flags = dict(argument.partition("=")[::2] for argument in container["args"])
    limit = flags.get("--rate-limit-resource", "").split(":")[0]
    faults = []
    for name in MODEL_NAMES:
        path = ROOT / "model_repository" / name / "configs" / f"{flags.get('--model-config-name')}.pbtxt"
        if not path.exists():
            return [f"{name} has no {path.name}"]
        config = text_format.Parse(path.read_text(), model_config_pb2.ModelConfig())
        engines = config.optimization.execution_accelerators.gpu_execution_accelerator
        if not all(engine.parameters["trt_engine_cache_path"].startswith(mounts) for engine in engines):
            faults.append(f"the engines of {name} lie in no volume")
        taken = {resource.name for group in config.instance_group for resource in group.rate_limiter.resources}
        if flags.get("--rate-limit") != "execution_count" or taken != {limit}:
            faults.append(f"the executions of {name} are not limited")
    return faults
