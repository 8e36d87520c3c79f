"""The official files to one loaded network: strictly, without running anything a file contains.

Every tensor of the network has exactly one key in exactly one file (`_RENAMES`), so what is missing, unknown or of the
wrong shape is always known by the name the file itself uses.
"""

import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import torch
from torch import Tensor

from export.network.ovsam import OpenVocabularySam
from export.variants import Variant

_LISTED = 8


class CheckpointError(Exception):
    """A checkpoint is not what the variant needs; the message names keys and the likely file."""


class CheckpointFile(StrEnum):
    """The four files, by the name of the command line's option."""

    CLIP = "clip"
    SAM2CLIP = "sam2clip"
    CLIP2SAM = "clip2sam"
    SAM = "sam"


@dataclass(frozen=True, slots=True)
class Source:
    """Where a file comes from, which of its keys are read, and which of those the network has no use for."""

    name: str
    origin: str
    megabytes: float
    licence: str
    prefixes: tuple[str, ...]
    unused: tuple[str, ...] = ()


SOURCES: dict[CheckpointFile, Source] = {
    CheckpointFile.CLIP: Source(
        name="RN50x16.pt",
        origin="openai/CLIP on GitHub, clip/clip.py, entry RN50x16 of its list of models",
        megabytes=630,
        licence="MIT",
        prefixes=("",),
        unused=("input_resolution", "context_length", "vocab_size", "logit_scale"),
    ),
    CheckpointFile.SAM2CLIP: Source(
        name="sam2clip_vith_rn50x16.pth",
        origin="HarborYuan/ovsam_models on Hugging Face",
        megabytes=536,
        licence="NTU S-Lab License 1.0",
        prefixes=("neck_student.",),
    ),
    CheckpointFile.CLIP2SAM: Source(
        name="clip2sam_coco_rn50x16.pth or clip2sam_lvis_rn50x16.pth",
        origin="HarborYuan/ovsam_models on Hugging Face",
        megabytes=31.5,
        licence="NTU S-Lab License 1.0",
        prefixes=("fpn_neck.", "mask_decoder."),
        # its output is multiplied by zero in the published inference
        unused=("mask_decoder.label_mlp.",),
    ),
    CheckpointFile.SAM: Source(
        name="sam_vit_h_4b8939.pth (26 kB of it: a file with just prompt_encoder.* will do)",
        origin="facebookresearch/segment-anything on GitHub, model checkpoint vit_h",
        megabytes=2445,
        licence="Apache-2.0",
        prefixes=("prompt_encoder.",),
    ),
}

# network key -> key in the file; the first match counts
_RENAMES: tuple[tuple[CheckpointFile, str, str], ...] = (
    (CheckpointFile.CLIP, r"^backbone\.", "visual."),
    (CheckpointFile.CLIP, r"^attention_pool\.", "visual.attnpool."),
    (CheckpointFile.CLIP, r"^text_encoder\.blocks\.(\d+)\.attn\.in_proj\.", r"transformer.resblocks.\1.attn.in_proj_"),
    (CheckpointFile.CLIP, r"^text_encoder\.blocks\.(\d+)\.mlp\.0\.", r"transformer.resblocks.\1.mlp.c_fc."),
    (CheckpointFile.CLIP, r"^text_encoder\.blocks\.(\d+)\.mlp\.2\.", r"transformer.resblocks.\1.mlp.c_proj."),
    (CheckpointFile.CLIP, r"^text_encoder\.blocks\.", "transformer.resblocks."),
    (CheckpointFile.CLIP, r"^text_encoder\.", ""),
    (CheckpointFile.SAM2CLIP, r"^adapter\.", "neck_student."),
    (CheckpointFile.CLIP2SAM, r"^feature_pyramid\.lateral\.(\d)\.", r"fpn_neck.lateral_convs.\1.conv."),
    (CheckpointFile.CLIP2SAM, r"^feature_pyramid\.output\.(\d)\.", r"fpn_neck.fpn_convs.\1.conv."),
    (CheckpointFile.CLIP2SAM, r"^mask_decoder\.label_token\.", "mask_decoder.label_token."),
    (CheckpointFile.CLIP2SAM, r"^mask_decoder\.upscaling\.first\.", "mask_decoder.mask_decoder.output_upscaling.0."),
    (CheckpointFile.CLIP2SAM, r"^mask_decoder\.upscaling\.norm\.", "mask_decoder.mask_decoder.output_upscaling.1."),
    (CheckpointFile.CLIP2SAM, r"^mask_decoder\.upscaling\.second\.", "mask_decoder.mask_decoder.output_upscaling.3."),
    (
        CheckpointFile.CLIP2SAM,
        r"^mask_decoder\.hypernetwork\.",
        "mask_decoder.mask_decoder.output_hypernetworks_mlps.0.",
    ),
    (CheckpointFile.CLIP2SAM, r"^mask_decoder\.", "mask_decoder.mask_decoder."),
    (CheckpointFile.CLIP2SAM, r"^region_head\.project\.", "mask_decoder.roi_conv.0.conv."),
    (
        CheckpointFile.SAM,
        r"^prompt_encoder\.fourier\.matrix$",
        "prompt_encoder.pe_layer.positional_encoding_gaussian_matrix",
    ),
    (CheckpointFile.SAM, r"^prompt_encoder\.", "prompt_encoder."),
)


def official_key(network_key: str) -> tuple[CheckpointFile, str]:
    """The file a tensor of the network comes from and its key there."""
    for file, pattern, replacement in _RENAMES:
        key, count = re.subn(pattern, replacement, network_key)
        if count:
            return file, key
    raise KeyError(network_key)


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """The tensors of a .pth file or of a TorchScript archive, under their own keys."""
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file (see `python -m export fetch-list`)")
    try:
        with warnings.catch_warnings():
            # a remark on TorchScript archives, which then raise
            warnings.simplefilter("ignore", UserWarning)
            content = torch.load(path, map_location="cpu", weights_only=True)
    except RuntimeError as error:
        if "TorchScript" not in str(error):
            raise CheckpointError(f"{path}: not a readable checkpoint: {error}") from error
        return _read_archive(path)
    except Exception as error:
        raise CheckpointError(f"{path}: refused, it holds more than tensors: {error}") from error
    state = content.get("state_dict", content)
    keys = [key for key in state if isinstance(state[key], Tensor)]
    wrapped = all(key.startswith("module.") for key in keys)
    return {key.removeprefix("module.") if wrapped else key: state[key] for key in keys}


def _read_archive(path: Path) -> dict[str, Tensor]:
    """OpenAI's own format; its loader is C++ and knows tensors and TorchScript only, no Python objects."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        archive = torch.jit.load(str(path), map_location="cpu")  # type: ignore[no-untyped-call]
    state: dict[str, Tensor] = archive.state_dict()
    return state


def load_network(variant: Variant, checkpoints: Mapping[CheckpointFile, Mapping[str, Tensor]]) -> OpenVocabularySam:
    """The variant's network in eval mode, float32, with every tensor taken from the checkpoints."""
    network = OpenVocabularySam(variant)
    wanted: dict[CheckpointFile, dict[str, str]] = {file: {} for file in CheckpointFile}
    state = network.state_dict()
    for network_key in state:
        file, key = official_key(network_key)
        wanted[file][key] = network_key
    for file in CheckpointFile:
        shapes = {key: tuple(state[network_key].shape) for key, network_key in wanted[file].items()}
        tensors = _pick(file, checkpoints[file], shapes)
        state |= {wanted[file][key]: _as_used(tensor) for key, tensor in tensors.items()}
    network.load_state_dict(state, assign=True)
    return network.eval().requires_grad_(requires_grad=False)


def _as_used(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.is_floating_point() else tensor


def _pick(
    file: CheckpointFile, tensors: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, Tensor]:
    """The wanted tensors of one file; raises when the file and the network disagree about a single key."""
    source = SOURCES[file]
    read = {key for key in tensors if key.startswith(source.prefixes) and not key.startswith(source.unused or ("\0",))}
    missing = sorted(shapes.keys() - read)
    extra = sorted(read - shapes.keys())
    wrong = [
        f"{key} {tuple(tensors[key].shape)}, wanted {shapes[key]}"
        for key in sorted(shapes.keys() & read)
        if tuple(tensors[key].shape) != shapes[key]
    ]
    if missing or extra or wrong:
        lines = [f"--{file}: not the {source.name} that this variant needs."]
        lines += [_listing(title, keys) for title, keys in (("missing", missing), ("unknown", extra), ("shape", wrong))]
        lines.append(_guess(file, tensors))
        raise CheckpointError("\n".join(line for line in lines if line))
    return {key: tensors[key] for key in shapes}


def _listing(title: str, keys: list[str]) -> str:
    if not keys:
        return ""
    more = f" ... and {len(keys) - _LISTED} more" if len(keys) > _LISTED else ""
    return f"  {title} ({len(keys)}): {', '.join(keys[:_LISTED])}{more}"


def _guess(file: CheckpointFile, tensors: Mapping[str, Tensor]) -> str:
    """Which of the four files was probably given."""
    for other, source in SOURCES.items():
        prefixes = ("visual.",) if other is CheckpointFile.CLIP else source.prefixes
        if other is not file and all(any(key.startswith(prefix) for key in tensors) for prefix in prefixes):
            return f"  It looks like {source.name}: was it meant for --{other}?"
    return ""


def fetch_list() -> str:
    """Where each file comes from, its size and licence, one per line."""
    return "\n".join(
        f"--{file:<9} {source.name}\n            {source.origin}; {source.megabytes:g} MB; {source.licence}"
        for file, source in SOURCES.items()
    )
