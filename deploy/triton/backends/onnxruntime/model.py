"""Triton's `onnxruntime` backend in Python, for machines without NVIDIA's container.

A model repository written for the C++ backend (`backend: "onnxruntime"`, `1/model.onnx`, complete
config.pbtxt) loads here unchanged, so that the production repository runs on a laptop and in CI. CPU only.
"""

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import triton_python_backend_utils as pb_utils  # provided by the stub that runs this file

ONNX_TYPES = {
    "TYPE_BOOL": "tensor(bool)",
    "TYPE_UINT8": "tensor(uint8)",
    "TYPE_UINT16": "tensor(uint16)",
    "TYPE_UINT32": "tensor(uint32)",
    "TYPE_UINT64": "tensor(uint64)",
    "TYPE_INT8": "tensor(int8)",
    "TYPE_INT16": "tensor(int16)",
    "TYPE_INT32": "tensor(int32)",
    "TYPE_INT64": "tensor(int64)",
    "TYPE_FP16": "tensor(float16)",
    "TYPE_FP32": "tensor(float)",
    "TYPE_FP64": "tensor(double)",
    "TYPE_STRING": "tensor(string)",
}

Config = dict[str, Any]
Tensors = dict[str, np.ndarray]


class TritonPythonModel:
    """One instance of a model: one stub process, one ONNX Runtime session."""

    def initialize(self, args: dict[str, str]) -> None:
        """Open the graph and refuse any difference between it and config.pbtxt."""
        if int(np.__version__.split(".")[0]) >= 2:
            raise RuntimeError(f"numpy {np.__version__}: this stub returns empty tensors with numpy 2, use numpy<2")
        config = json.loads(args["model_config"])
        self._batched = config["max_batch_size"] > 0
        self._session = onnxruntime.InferenceSession(
            _model_path(config, args),
            _session_options(config),
            providers=["CPUExecutionProvider"],
            disabled_optimizers=["SkipLayerNormFusion"],  # slower than what it fuses, as in the embedded engine
        )
        _check_tensors(config, self._session)
        self._inputs = [tensor["name"] for tensor in config["input"]]

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer in the order of the requests; those of equal shapes share one run of the graph."""
        responses: list[Any] = [None] * len(requests)
        groups: dict[tuple[Any, ...], list[int]] = defaultdict(list)
        feeds: dict[int, Tensors] = {}
        for index, request in enumerate(requests):
            try:
                if request.is_cancelled():
                    responses[index] = _error("the client cancelled the request", pb_utils.TritonError.CANCELLED)
                    continue
                feeds[index] = self._read(request)
                groups[self._group_key(index, feeds[index])].append(index)
            except Exception as error:  # noqa: BLE001 - one that leaves execute() kills the stub for good
                responses[index] = _error(str(error), pb_utils.TritonError.INVALID_ARG)
        for members in groups.values():
            self._answer(members, requests, feeds, responses)
        return responses

    def finalize(self) -> None:
        """Free the session before the process ends, so that an unload returns its memory."""
        del self._session

    def _read(self, request: Any) -> Tensors:
        feed: Tensors = {}
        for name in self._inputs:
            tensor = pb_utils.get_input_tensor_by_name(request, name)
            if tensor is None:
                raise ValueError(f"input '{name}' is missing")
            feed[name] = tensor.as_numpy()
        return feed

    def _group_key(self, index: int, feed: Tensors) -> tuple[Any, ...]:
        """Return equal keys for requests that may share a run: their shapes agree beyond the batch axis."""
        return tuple(array.shape[1:] for array in feed.values()) if self._batched else (index,)

    def _answer(self, members: list[int], requests: list[Any], feeds: dict[int, Tensors], responses: list[Any]) -> None:
        """Run `members` together; when that fails run each alone, so that a bad request fails alone."""
        try:
            results = self._run([feeds[i] for i in members], [requests[i].requested_output_names() for i in members])
            for index, result in zip(members, results, strict=True):
                tensors = [pb_utils.Tensor(name, array) for name, array in result.items()]
                responses[index] = pb_utils.InferenceResponse(output_tensors=tensors)
        except Exception as error:  # noqa: BLE001 - see execute()
            if len(members) == 1:
                responses[members[0]] = _error(str(error), _code(error))
                return
            for index in members:
                self._answer([index], requests, feeds, responses)

    def _run(self, feeds: list[Tensors], requested: list[list[str]]) -> list[Tensors]:
        names = sorted(set().union(*requested))
        feed = feeds[0] if len(feeds) == 1 else {n: np.concatenate([f[n] for f in feeds]) for n in self._inputs}
        outputs = dict(zip(names, self._session.run(names, feed), strict=True))
        if not self._batched:
            return [outputs]
        ends = np.cumsum([next(iter(feed.values())).shape[0] for feed in feeds])
        for name, array in outputs.items():
            if array.ndim == 0 or array.shape[0] != ends[-1]:
                raise ValueError(f"output '{name}' of shape {array.shape} has not the batch axis of size {ends[-1]}")
        parts = {name: np.split(array, ends[:-1]) for name, array in outputs.items()}
        return [{name: parts[name][i] for name in wanted} for i, wanted in enumerate(requested)]


def _model_path(config: Config, args: dict[str, str]) -> str:
    filename = config.get("default_model_filename") or "model.onnx"
    return str(Path(args["model_repository"]) / args["model_version"] / filename)


def _session_options(config: Config) -> onnxruntime.SessionOptions:
    """Read the C++ backend's own thread parameters (absent or 0: one thread per core)."""
    parameters = {key: value["string_value"] for key, value in config.get("parameters", {}).items()}
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = int(parameters.get("intra_op_thread_count", 0))
    options.inter_op_num_threads = int(parameters.get("inter_op_thread_count", 0))
    # Several models share the cores: a pool that spins between runs takes them from its neighbours.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def _check_tensors(config: Config, session: onnxruntime.InferenceSession) -> None:
    """Refuse a config that disagrees with the graph, which would fail only on the first request."""
    inputs = {tensor.name: tensor for tensor in session.get_inputs()}
    outputs = {tensor.name: tensor for tensor in session.get_outputs()}
    unfed = sorted(set(inputs) - {tensor["name"] for tensor in config["input"]})
    if unfed:
        raise ValueError(f"the graph's input {unfed} is not in config.pbtxt")
    for kind, declared, known in (("input", config["input"], inputs), ("output", config["output"], outputs)):
        for tensor in declared:
            if tensor["name"] not in known:
                raise ValueError(f"{kind} '{tensor['name']}' is not in the graph, which has {sorted(known)}")
            _check_tensor(f"{kind} '{tensor['name']}'", tensor, known[tensor["name"]], config["max_batch_size"])


def _check_tensor(label: str, declared: Config, actual: Any, max_batch_size: int) -> None:
    expected_type = ONNX_TYPES.get(declared["data_type"])
    if actual.type != expected_type:
        raise ValueError(f"{label}: config.pbtxt says {declared['data_type']}, the graph {actual.type}")
    graph_shape = [size if isinstance(size, int) else -1 for size in actual.shape]
    shape = [int(size) for size in declared["dims"]]
    if max_batch_size > 0:
        shape = [-1, *shape]
    # -1 in the graph takes any size; a fixed size in the graph must be stated as such.
    agree = len(shape) == len(graph_shape) and all(g in (-1, s) for g, s in zip(graph_shape, shape, strict=True))
    if not agree:
        raise ValueError(f"{label}: config.pbtxt says shape {shape} (batch axis included), the graph {graph_shape}")


def _code(error: Exception) -> int:
    wrong_request = isinstance(error, onnxruntime.capi.onnxruntime_pybind11_state.InvalidArgument)
    return pb_utils.TritonError.INVALID_ARG if wrong_request else pb_utils.TritonError.INTERNAL


def _error(message: str, code: int) -> Any:
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(message, code))
