"""Tensors <-> Triton's messages (KServe's inference protocol, version 2), without copies on the way back."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from tritonclient.grpc import service_pb2

from service.adapters.shared_slots import Slot
from service.core.spec import ModelName
from service.core.types import Array, Tensors

_WIRE_TYPES = {
    "uint8": "UINT8",
    "int8": "INT8",
    "int32": "INT32",
    "int64": "INT64",
    "float16": "FP16",
    "float32": "FP32",
    "bool": "BOOL",
}
_NUMPY_TYPES = {wire: name for name, wire in _WIRE_TYPES.items()}


class InvalidAnswer(Exception):
    """The server's answer does not hold what was asked for."""


@dataclass(frozen=True, slots=True, eq=False)
class InferCall:
    """One call of a model, whichever server it goes to and however its tensors travel.

    It names the version, so that it is never answered by one that a roll-out has loaded meanwhile.
    """

    model: ModelName
    version: str
    outputs: tuple[str, ...]
    inputs: Tensors

    def request(self, slot: Slot | None = None) -> service_pb2.ModelInferRequest:
        """The message, with its tensors in it or with their places in `slot`."""
        request = service_pb2.ModelInferRequest(model_name=self.model, model_version=self.version)
        for name, array in self.inputs.items():
            tensor = request.inputs.add(name=name, datatype=_WIRE_TYPES[array.dtype.name], shape=array.shape)
            if slot is None:
                request.raw_input_contents.append(array.tobytes())
                continue
            offset, size = slot.places[name]
            tensor.parameters["shared_memory_region"].string_param = slot.region
            tensor.parameters["shared_memory_offset"].int64_param = offset
            tensor.parameters["shared_memory_byte_size"].int64_param = size
        for name in self.outputs:
            request.outputs.add(name=name)
        return request


def answer_tensors(response: service_pb2.ModelInferResponse, outputs: Iterable[str]) -> dict[str, Array]:
    """Read-only views into the response's bytes, in the order of `outputs`; raises InvalidAnswer."""
    arrays: dict[str, Array] = {}
    try:
        for tensor, content in zip(response.outputs, response.raw_output_contents, strict=True):
            flat = np.frombuffer(content, dtype=_NUMPY_TYPES[tensor.datatype])
            arrays[tensor.name] = flat.reshape(tuple(tensor.shape))
        return {name: arrays[name] for name in outputs}
    except (KeyError, ValueError) as error:
        raise InvalidAnswer(f"{response.model_name} answered with {sorted(arrays)}") from error
