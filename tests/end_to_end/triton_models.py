"""Small ONNX models in Triton's layout, each for one behaviour of the server."""

from pathlib import Path

from onnx import helper

from tests.onnx_models import BOOL, FLOAT, FLOAT16, INT32, INT64, UINT8, tensor, write_config, write_model

SLOW_SIZE = 384


def write_sum_and_difference(repository: Path, name: str = "arithmetic", *, extra: str = "dynamic_batching {}") -> None:
    """Two float32 [B, n] in, their sum and difference out."""
    inputs = [tensor("a", FLOAT, "batch", "n"), tensor("b", FLOAT, "batch", "n")]
    outputs = [tensor("sum", FLOAT, "batch", "n"), tensor("difference", FLOAT, "batch", "n")]
    nodes = [helper.make_node("Add", ["a", "b"], ["sum"]), helper.make_node("Sub", ["a", "b"], ["difference"])]
    write_model(repository / name, nodes, inputs, outputs)
    write_config(repository / name, inputs, outputs, extra=extra)


def write_types(repository: Path) -> None:
    """One tensor of each type that the service uses, unbatched and of any shape, comes back as it was."""
    kinds = {"half": FLOAT16, "byte": UINT8, "long": INT64, "int": INT32}
    inputs = [tensor(name, kind, "rows", "columns") for name, kind in kinds.items()]
    outputs = [tensor(f"{name}_out", kind, "rows", "columns") for name, kind in kinds.items()]
    nodes = [helper.make_node("Identity", [name], [f"{name}_out"]) for name in kinds]
    write_model(repository / "types", nodes, inputs, outputs)
    write_config(repository / "types", inputs, outputs, max_batch_size=0, extra="")


def write_lookup(repository: Path, *, extra: str = "") -> None:
    """Look an int64 [B, n] up in a table of five; an index beyond it fails in the graph."""
    table = helper.make_tensor("table", FLOAT, [5], [0.0, 10.0, 20.0, 30.0, 40.0])
    inputs, outputs = [tensor("index", INT64, "batch", "n")], [tensor("value", FLOAT, "batch", "n")]
    node = helper.make_node("Gather", ["table", "index"], ["value"])
    write_model(repository / "lookup", [node], inputs, outputs, initializers=[table])
    write_config(repository / "lookup", inputs, outputs, extra=extra or "dynamic_batching {}")


def write_slow(repository: Path, *, extra: str = "") -> None:
    """Take a time that the caller chooses: int64 [B, 1] says how many matrix products are computed."""
    size = SLOW_SIZE
    body = helper.make_graph(
        [
            helper.make_node("MatMul", ["state", "matrix"], ["state_out"]),
            helper.make_node("Identity", ["go_on"], ["go_on_out"]),
        ],
        "body",
        [tensor("step", INT64), tensor("go_on", BOOL), tensor("state", FLOAT, size, size)],
        [tensor("go_on_out", BOOL), tensor("state_out", FLOAT, size, size)],
    )
    nodes = [
        helper.make_node("ReduceMax", ["repeats"], ["trips"], keepdims=0),
        helper.make_node("Loop", ["trips", "", "matrix"], ["final"], body=body),
        helper.make_node("ReduceMin", ["final"], ["least"], keepdims=0),
        helper.make_node("Mul", ["least", "zero"], ["nothing"]),
        helper.make_node("Cast", ["repeats"], ["as_float"], to=FLOAT),
        helper.make_node("Add", ["as_float", "nothing"], ["repeats_out"]),
    ]
    initializers = [
        helper.make_tensor("matrix", FLOAT, [size, size], [0.0] * size * size),
        helper.make_tensor("zero", FLOAT, [], [0.0]),
    ]
    inputs, outputs = [tensor("repeats", INT64, "batch", 1)], [tensor("repeats_out", FLOAT, "batch", 1)]
    write_model(repository / "slow", nodes, inputs, outputs, initializers=initializers)
    write_config(repository / "slow", inputs, outputs, max_batch_size=1, extra=extra)
