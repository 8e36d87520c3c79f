"""`python -m export.nano prepare | train | recognise | vocabularies | export`: the recipe, repeatable."""

import argparse
import dataclasses
from pathlib import Path

from export.nano.cutouts import prepare_cutouts
from export.nano.export import export_repository, write_text_side
from export.nano.ingredients import fetch
from export.nano.photographed_classes import ClassesConfig, write_classes
from export.nano.recognition import RecognitionConfig, compute_features, train_gate, train_head
from export.nano.scenes import prepare_scenes
from export.nano.text import TextEncoder
from export.nano.train import TrainingConfig, train
from export.nano.vocabularies import write_vocabularies

HELD_OUT_SCENES = 150
VOCABULARIES = "text_encoder/vocabularies"
SPLIT_SEEDS = {"train": 1, "held_out": 7, "unseen_style": 8}


def main() -> None:
    """Parse the command line and run one step."""
    arguments = _parser().parse_args()
    if arguments.step == "prepare":
        prepare(arguments.work, scenes=arguments.scenes, processes=arguments.processes)
    elif arguments.step == "train":
        train(arguments.work, TrainingConfig(steps=arguments.steps, scenes=arguments.scenes, seed=arguments.seed))
    elif arguments.step == "recognise":
        recognise(arguments.work, processes=arguments.processes)
    elif arguments.step == "vocabularies":
        write_vocabularies(arguments.work, arguments.repository / VOCABULARIES, label_sets=arguments.label_sets)
    elif arguments.step == "export":
        export_repository(arguments.work, arguments.repository, only=arguments.only)


def prepare(work: Path, *, scenes: int, processes: int) -> None:
    """Packages, cut-outs, scenes."""
    fetch(work)
    if not (work / "cutouts.json").exists():
        prepare_cutouts(work, processes=processes)
    for split, seed in SPLIT_SEEDS.items():
        count = scenes if split == "train" else HELD_OUT_SCENES
        prepare_scenes(work, split, count, seed=seed, processes=processes)


def recognise(work: Path, *, processes: int) -> None:
    """Features, head and gate of the drawings, by the texts of the encoder to export; then the photographs' classes."""
    config = RecognitionConfig()
    compute_features(work, config, processes=processes)
    write_text_side(work, work / "text")
    train_head(work, TextEncoder(work / "text/text_encoder"), config)
    train_gate(work, config)
    write_classes(work, ClassesConfig())


def _parser() -> argparse.ArgumentParser:
    defaults = {field.name: field.default for field in dataclasses.fields(TrainingConfig)}
    parser = argparse.ArgumentParser(prog="python -m export.nano", description=__doc__)
    parser.add_argument(
        "--work", type=Path, default=Path("build/nano"), help="folder for packages, scenes, checkpoints"
    )
    steps = parser.add_subparsers(dest="step", required=True)
    data = steps.add_parser("prepare", help="fetch the packages, render cut-outs, compose scenes")
    masks = steps.add_parser("train", help="train the mask network (continues a checkpoint)")
    masks.add_argument("--steps", type=int, default=defaults["steps"], help="length of the cosine schedule")
    masks.add_argument("--seed", type=int, default=defaults["seed"], help="of weights, batches and prompts")
    for step in (data, masks):
        step.add_argument("--scenes", type=int, default=defaults["scenes"], help="training scenes")
    head = steps.add_parser("recognise", help="compute features of the drawings and train the region head")
    for step in (data, head):
        step.add_argument("--processes", type=int, default=2, help="processes that render and compose")
    names = steps.add_parser("vocabularies", help="write the class names that ship with the model")
    names.add_argument("--label-sets", type=Path, required=True, help="JSON with the names and splits of COCO and LVIS")
    graphs = steps.add_parser("export", help="write the model repository from the checkpoints")
    graphs.add_argument("--only", choices=("masks", "names"), help="export these and keep the other half that is there")
    for step in (names, graphs):
        step.add_argument("--repository", type=Path, default=Path("model_repository"), help="folder to write")
    return parser


if __name__ == "__main__":
    main()
