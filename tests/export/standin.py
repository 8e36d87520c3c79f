"""The stand-in checkpoints of the golden data: deterministic weights under the official files' names and keys."""

import importlib.util
import json
import os
from pathlib import Path
from typing import Any

import torch

from export.checkpoints import CheckpointFile, load_network, read_checkpoint
from export.network.ovsam import OpenVocabularySam
from export.variants import VARIANTS

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = Path(os.environ.get("OVSAM_GOLDEN", ROOT.parent / "shared" / "ovsam_reference"))
FILES = {
    CheckpointFile.CLIP: "RN50x16.pt",
    CheckpointFile.SAM2CLIP: "sam2clip_vith_rn50x16.pth",
    CheckpointFile.CLIP2SAM: "clip2sam_coco_rn50x16.pth",
    CheckpointFile.SAM: "sam_vit_h_4b8939.pth",
}


def write_checkpoints(folder: Path) -> dict[CheckpointFile, Path]:
    """Write the four files to `folder` unless they are there."""
    folder.mkdir(parents=True, exist_ok=True)
    layout = json.loads((GOLDEN / "checkpoint_layout.json").read_text())["files"]
    paths = {file: folder / name for file, name in FILES.items()}
    for path in paths.values():
        if not path.exists():
            arrays = _reference_weights().make_state_dict(layout[path.name]["tensors"])
            partial = path.with_suffix(".partial")
            torch.save({"state_dict": {key: torch.from_numpy(array) for key, array in arrays.items()}}, partial)
            partial.replace(path)
    return paths


def standin_network() -> OpenVocabularySam:
    """The full-size network with the stand-in weights."""
    paths = write_checkpoints(ROOT / "build" / "standin-checkpoints")
    return load_network(VARIANTS["ovsam-rn50x16"], {file: read_checkpoint(path) for file, path in paths.items()})


def _reference_weights() -> Any:
    spec = importlib.util.spec_from_file_location("reference_weights", GOLDEN / "reference_weights.py")
    if spec is None or spec.loader is None:
        raise FileNotFoundError(GOLDEN / "reference_weights.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
