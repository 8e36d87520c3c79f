"""The command line of the export: `python -m export {fetch-list,onnx,parity,vocabulary,tensorrt}`."""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from export.checkpoints import SOURCES, CheckpointError, CheckpointFile, fetch_list, load_network, read_checkpoint
from export.golden import check_repository
from export.golden_case import GoldenError
from export.parity import DriftError, table
from export.publish import publish
from export.tensorrt_build import TensorRtError, build_plans, write_gpu_configs
from export.variants import VARIANTS
from export.vocabularies import TextEmbedder, add_vocabulary, ranking_milliseconds, read_names

_NAMES = Path("model_repository/text_encoder/vocabularies")
_ERRORS = (CheckpointError, DriftError, GoldenError, TensorRtError, FileNotFoundError)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; 1 means drift or an input that cannot be used."""
    options = _parser().parse_args(arguments)
    command: Callable[[argparse.Namespace], int] = options.command
    try:
        return command(options)
    except _ERRORS as error:
        print(error, file=sys.stderr)
        return 1


def _fetch_list(_: argparse.Namespace) -> int:
    print(fetch_list())
    return 0


def _onnx(options: argparse.Namespace) -> int:
    checkpoints = {file: read_checkpoint(getattr(options, file)) for file in CheckpointFile}
    network = load_network(VARIANTS[options.variant], checkpoints)
    figures = publish(
        network,
        options.repository,
        precision=options.precision,
        vocabularies=options.vocabularies,
        default_vocabulary=options.default_vocabulary,
    )
    print(table(figures))
    return 0


def _parity(options: argparse.Namespace) -> int:
    figures = []
    for case in options.case or sorted(path.stem for path in options.golden.glob("image*.json")):
        figures += check_repository(options.repository, options.golden, case=case)
    if not figures:
        raise GoldenError(f"{options.golden}: no golden case image*.json here")
    print(table(figures))
    return 0 if all(figure.holds for figure in figures) else 1


def _vocabulary(options: argparse.Namespace) -> int:
    source = options.names or options.repository / "text_encoder" / "vocabularies" / f"{options.name}.json"
    path = add_vocabulary(TextEmbedder(options.repository), read_names(source, name=options.name))
    print(f"{path}: {path.stat().st_size / 2**20:.1f} MiB; ranking one prompt {ranking_milliseconds(path):.2f} ms")
    return 0


def _tensorrt(options: argparse.Namespace) -> int:
    write = write_gpu_configs if options.provider else build_plans
    for path in write(options.repository):
        print(path)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m export", description=__doc__)
    commands = parser.add_subparsers(required=True)

    fetch = commands.add_parser("fetch-list", help="where the official files come from, their size and licence")
    fetch.set_defaults(command=_fetch_list)

    onnx = commands.add_parser("onnx", help="export the official checkpoints to a model repository")
    onnx.add_argument("--variant", choices=sorted(VARIANTS), default="ovsam-rn50x16")
    for file in CheckpointFile:
        onnx.add_argument(f"--{file}", type=Path, required=True, help=SOURCES[file].name)
    onnx.add_argument("--precision", choices=("float32", "float16"), default="float32")
    onnx.add_argument("--vocabularies", type=Path, default=_NAMES, help="folder of name lists to ship")
    onnx.add_argument("--default-vocabulary", default="coco")
    onnx.set_defaults(command=_onnx)

    parity = commands.add_parser("parity", help="hold an exported repository against golden data")
    parity.add_argument("--golden", type=Path, required=True, help="folder of golden data")
    parity.add_argument("--case", action="append", help="for example image1; all cases of the folder without it")
    parity.set_defaults(command=_parity)

    vocabulary = commands.add_parser("vocabulary", help="embed a list of names; an interrupted run goes on")
    vocabulary.add_argument("name")
    vocabulary.add_argument(
        "--names", type=Path, help="JSON list, text file with a name on each line; else the shipped"
    )
    vocabulary.set_defaults(command=_vocabulary)

    tensorrt = commands.add_parser("tensorrt", help="build TensorRT plans, or let ONNX Runtime do it")
    tensorrt.add_argument("--provider", action="store_true", help="only write configs/gpu.pbtxt (each export does)")
    tensorrt.set_defaults(command=_tensorrt)

    for command in (onnx, parity, vocabulary, tensorrt):
        command.add_argument("--repository", type=Path, required=True, help="the model repository")
    return parser


if __name__ == "__main__":
    sys.exit(main())
