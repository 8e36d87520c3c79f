"""Whether a server's model is the one that the gateway's manifest describes: a roll-out must not mix embeddings."""

from collections.abc import Mapping
from dataclasses import dataclass

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from service.adapters.manifest import GraphSpec

GRAPH_DIGEST = "graph_sha256.{version}"  # parameters of config.pbtxt, one for each version: all share that file


@dataclass(frozen=True, slots=True)
class ModelIdentity:
    """A model's version, its tensors (type and dims by name), and its graph's digest where config.pbtxt states it."""

    version: str
    tensors: Mapping[str, tuple[str, tuple[int, ...]]]
    digest: str

    def difference(self, config: model_config_pb2.ModelConfig) -> str:
        """What differs in a server's configuration; nothing when it serves this model."""
        theirs = identity_of(config, version=self.version)
        names = sorted(self.tensors.keys() | theirs.tensors.keys())
        wrong = [name for name in names if self.tensors.get(name) != theirs.tensors.get(name)]
        if wrong:
            return f"its tensors {wrong} are other ones"
        return "its graph has another digest" if self.digest != theirs.digest else ""


def identity_of(config: model_config_pb2.ModelConfig, *, version: str) -> ModelIdentity:
    """Read the identity that a configuration states."""
    key = GRAPH_DIGEST.format(version=version)
    type_name = model_config_pb2.DataType.Name
    return ModelIdentity(
        version=version,
        tensors={
            tensor.name: (type_name(tensor.data_type), tuple(tensor.dims)) for tensor in (*config.input, *config.output)
        },
        digest=config.parameters[key].string_value if key in config.parameters else "",
    )


def read_identity(graph: GraphSpec) -> ModelIdentity:
    """Read the identity of a model in the gateway's own repository, at the version that it uses."""
    text = (graph.path.parents[1] / "config.pbtxt").read_text()
    return identity_of(text_format.Parse(text, model_config_pb2.ModelConfig()), version=graph.path.parent.name)
