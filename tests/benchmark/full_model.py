"""What the exported full model costs on this processor, against the eager network and on another engine.

Processor time of one thread, the least of a few rounds in turn: other work on the machine changes wall time, not this.
`python -m tests.benchmark.full_model --repository DIR [--part prompt_decoder] [--openvino f32] [--golden FOLDER]`
"""

import argparse
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import torch

from export.golden import GoldenCheck
from export.golden_case import GoldenCase
from export.graphs import GraphSpec, graph_specs
from export.parity import Runner, table
from service.core.types import Array
from tests.export.standin import standin_network

_PARTS = ("image_encoder", "prompt_decoder", "region_encoder")
_PROMPTS = (1, 8, 32)
_DRAWN = (0, 1, 3)  # the rows of the example boxes that are not empty: levels P2, P3 and P5
_CELLS = 48  # a window of three tiles, about what one object's region needs
_ORIGINS = {"p2": (16, 16), "p3": (0, 16)}  # of windows that hold the drawn boxes
Call = Callable[[], object]


def prompt_inputs(spec: GraphSpec, count: int) -> dict[str, Array]:
    """The decoder's example prompts of one image, again and again."""
    rows = np.arange(count) % 3
    inputs = {name: tensor[:1].numpy() for name, tensor in spec.inputs.items()}
    return {name: array if name == "image_embedding" else array[:, rows] for name, array in inputs.items()}


def region_inputs(spec: GraphSpec, count: int) -> dict[str, Array]:
    """The example boxes of one image, again and again, with the tiles that they need."""
    inputs = {name: tensor[:1].numpy() for name, tensor in spec.inputs.items()}
    inputs["boxes"] = inputs["boxes"][:, np.resize(_DRAWN, count)]
    for name, (row, column) in _ORIGINS.items():
        inputs[f"{name}_origin"] = np.array([[row, column]], np.int32)
        inputs[name] = np.ascontiguousarray(inputs[name][:, :, row : row + _CELLS, column : column + _CELLS])
    return inputs


def cases(spec: GraphSpec) -> dict[str, dict[str, Array]]:
    """Inputs of a graph by the name of their row in the table."""
    if spec.name == "image_encoder":
        return {"1 image": {name: tensor[:1].numpy() for name, tensor in spec.inputs.items()}}
    inputs = prompt_inputs if spec.name == "prompt_decoder" else region_inputs
    return {f"{count} prompts": inputs(spec, count) for count in _PROMPTS}


class OpenVinoRunner:
    """A graph on OpenVINO that answers by output name."""

    def __init__(self, path: Path, *, precision: str, threads: int) -> None:
        options = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": precision}
        self._model = openvino.Core().compile_model(path, "CPU", options)

    def __call__(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        answer = self._model(dict(inputs))
        return {port.any_name: answer[port] for port in self._model.outputs}


class OpenVinoCheck(GoldenCheck):
    """The golden check with OpenVINO in place of ONNX Runtime, in the precisions that the service gives it."""

    precision = "f32"

    def _runner(self, model: str) -> Any:
        precision = self.precision if model == "image_encoder" else "f32"
        return OpenVinoRunner(self.repository / model / "1" / "model.onnx", precision=precision, threads=0)


def eager(spec: GraphSpec, inputs: dict[str, Array]) -> Call:
    """A call of the torch network."""
    tensors = [torch.from_numpy(np.ascontiguousarray(array)) for array in inputs.values()]

    def call() -> object:
        with torch.inference_mode():
            return spec.module(*tensors)

    return call


def least_seconds(calls: dict[str, Call], rounds: int) -> dict[str, float]:
    """Processor seconds of each call, the least of `rounds` after one to warm up; the calls take turns."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds + 1):
        for name, call in calls.items():
            started = time.process_time()
            call()
            times[name].append(time.process_time() - started)
    return {name: min(found[1:]) for name, found in times.items()}


def measure(spec: GraphSpec, folder: Path, *, openvino_precision: str, rounds: int) -> dict[str, dict[str, float]]:
    """Seconds of each engine for each row of a graph; one graph at a time, for memory's sake."""
    path = folder / spec.name / "1" / "model.onnx"
    engines: dict[str, Callable[[Mapping[str, Array]], object]] = {"onnxruntime": Runner(path, threads=1)}
    if openvino_precision:
        engines["openvino"] = OpenVinoRunner(path, precision=openvino_precision, threads=1)
    found = {}
    for row, inputs in cases(spec).items():
        calls = {"eager": eager(spec, inputs)}
        calls |= {name: partial(engine, inputs) for name, engine in engines.items()}
        found[row] = seconds = least_seconds(calls, rounds)
        ratios = "".join(f"   {name} {seconds['eager'] / seconds[name]:.2f} x" for name in engines)
        cells = "".join(f"   {name} {value:.3f} s" for name, value in seconds.items())
        print(f"{spec.name:<16}{row:<12}{cells}   faster than eager:{ratios}", flush=True)
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repository", type=Path, required=True)
    parser.add_argument("--part", choices=_PARTS, action="append", help="all without it")
    parser.add_argument(
        "--openvino", choices=("f32", "bf16", "f16"), default="", help="OpenVINO too, in this precision"
    )
    parser.add_argument("--golden", type=Path, help="hold OpenVINO's answers against this folder")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    specs = {spec.name: spec for spec in graph_specs(standin_network())}
    seconds = {
        part: measure(specs[part], options.repository, openvino_precision=options.openvino, rounds=options.rounds)
        for part in options.part or _PARTS
    }
    if {"prompt_decoder", "region_encoder"} <= set(seconds):
        for row, masks in seconds["prompt_decoder"].items():
            labels = seconds["region_encoder"][row]
            ratios = "".join(f"   {name} {1 + labels[name] / masks[name]:.2f} x" for name in masks)
            print(f"masks and labels over masks alone, {row}:{ratios}")
    if options.golden:
        check = OpenVinoCheck(options.repository, GoldenCase(options.golden, "image1"))
        check.precision = options.openvino
        print(table(check.figures()))


if __name__ == "__main__":
    main()
