"""Three ways from a mask to embeddings that names are ranked by: the model's own and the paper's two naive ones."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from service.baselines.cut_graph import CutGraph
from service.baselines.regions import cropped, frozen_tensors, low_res_mask, pooled_tensors, region_tensors
from service.core.bundles import MASK_PART, letterbox_of
from service.core.images import resize_to_model
from service.core.spec import ModelSpec
from service.core.types import Array, BoolArray, Letterbox, Tensors, UInt8Array

FEATURE_OUTPUT = "feature_embedding"
"""Optional output of a region encoder that pools under masks by itself (export/README.md)."""
Open = Callable[[Sequence[str]], CutGraph]
"""Opens a graph, cut down to some of its outputs."""


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """A picture [H, W, 3] and the parts of its embedding."""

    pixels: UInt8Array
    parts: dict[str, Tensors]


@dataclass(frozen=True, slots=True)
class Recogniser:
    """Embeds one mask [H, W] of a picture by running `graphs`."""

    graphs: tuple[CutGraph, ...]
    embed: Callable[[View, BoolArray], dict[str, Array]]


def own_recogniser(spec: ModelSpec, _: Open, open_regions: Open) -> Recogniser:
    """The region encoder, asked as the service asks it."""
    graph = open_regions(spec.recognition.embeddings)

    def embed(view: View, mask: BoolArray) -> dict[str, Array]:
        return graph.run(region_tensors(view.parts, _cells(view, mask, spec), spec=spec))

    return Recogniser((graph,), embed)


def feature_crop(spec: ModelSpec, _: Open, open_regions: Open) -> Recogniser:
    """The frozen image encoder's map, its mean under the mask, and nothing that was trained for regions."""
    pools = spec.region_takes_masks
    graph = open_regions([FEATURE_OUTPUT] if pools else spec.recognition.embeddings[-1:])

    def embed(view: View, mask: BoolArray) -> dict[str, Array]:
        cells = _cells(view, mask, spec)
        inputs = region_tensors(view.parts, cells, spec=spec)
        return graph.run(inputs if pools else inputs | pooled_tensors(view.parts, cells, spec=spec))

    return Recogniser((graph,), embed)


def image_crop(spec: ModelSpec, open_encoder: Open, open_regions: Open) -> Recogniser:
    """The picture cut out under the mask and encoded anew, then recognised as a whole."""
    graph = open_regions(spec.recognition.embeddings[-1:])
    read = spec.region_tensors if spec.region_takes_masks else frozen_tensors(spec)
    trunk = open_encoder([name for name in read if name in graph.inputs])

    def embed(view: View, mask: BoolArray) -> dict[str, Array]:
        crop = cropped(view.pixels, mask)
        inputs, letterbox = frame_tensors(crop, spec=spec)
        whole = low_res_mask(np.ones(crop.shape[:2], np.bool_), letterbox, spec=spec)
        # of the picture's own tensors an exported graph reads shapes, at most
        return graph.run(region_tensors(view.parts, whole, spec=spec) | trunk.run(inputs))

    return Recogniser((trunk, graph), embed)


def frame_tensors(pixels: UInt8Array, *, spec: ModelSpec) -> tuple[dict[str, Array], Letterbox]:
    """A picture [H, W, 3] as the image encoder takes it."""
    frame, letterbox = resize_to_model(pixels, input_size=spec.input_size)
    return {"image": frame[None], "valid_size": np.array([letterbox.resized], np.int32)}, letterbox


def _cells(view: View, mask: BoolArray, spec: ModelSpec) -> BoolArray:
    return low_res_mask(mask, letterbox_of(view.parts[MASK_PART]), spec=spec)
