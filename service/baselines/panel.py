"""The recognisers of one repository over the same pictures, masks and names."""

import time
from collections.abc import Collection, Sequence
from dataclasses import replace

import numpy as np

from service.adapters.manifest import Repository
from service.baselines.cut_graph import CutGraph
from service.baselines.recognisers import (
    Recogniser,
    View,
    feature_crop,
    frame_tensors,
    image_crop,
    own_recogniser,
)
from service.core.bundles import split_bundle
from service.core.images import decode_image
from service.core.labels import rank_classes, top_classes
from service.core.types import BoolArray, Float32Array, TextClassifier

KINDS = {"ovsam": own_recogniser, "image-crop": image_crop, "feature-crop": feature_crop}
_NAMES = 5
_PIXELS = 2**40  # no limit: these are the caller's own pictures, which the service has taken


class Panel:
    """Recognisers of these `kinds`, ranking the names of one classifier."""

    def __init__(
        self,
        repository: Repository,
        classifier: TextClassifier,
        *,
        kinds: Collection[str],
        threads: int,
    ) -> None:
        self._spec = repository.spec
        self._classifier = classifier
        encoder, regions = (repository.graphs[name].path for name in ("image_encoder", "region_encoder"))

        def open_encoder(outputs: Sequence[str]) -> CutGraph:
            return CutGraph(encoder, outputs, threads=threads)

        def open_regions(outputs: Sequence[str]) -> CutGraph:
            return CutGraph(regions, outputs, threads=threads)

        self._encoder = open_encoder([*self._spec.mask_tensors, *self._spec.region_tensors])
        self._recognisers: dict[str, Recogniser] = {
            kind: KINDS[kind](self._spec, open_encoder, open_regions) for kind in kinds
        }

    @property
    def revision(self) -> str:
        """The model revision of the repository."""
        return self._spec.revision

    def view(self, content: bytes) -> View:
        """Encode a picture, given as a file's bytes, once for all its masks."""
        pixels = decode_image(content, max_pixels=_PIXELS)
        inputs, letterbox = frame_tensors(pixels, spec=self._spec)
        return View(pixels, split_bundle(self._encoder.run(inputs), letterbox, spec=self._spec))

    def recognise(self, kind: str, view: View, mask: BoolArray) -> tuple[tuple[str, ...], float]:
        """The best names of what lies under a mask [H, W] that is not empty, and the seconds they took."""
        start = time.perf_counter()
        found = self._recognisers[kind].embed(view, mask)
        names = self._rank([value[0].astype(np.float32) for value in found.values()])
        return names, time.perf_counter() - start

    def image_flops(self) -> int:
        """FLOPs of encoding a picture; 0 before any."""
        return self._encoder.flops()

    def prompt_flops(self, kind: str) -> int:
        """FLOPs of recognising one mask; 0 before any."""
        return sum(graph.flops() for graph in self._recognisers[kind].graphs)

    def _rank(self, embeddings: Sequence[Float32Array]) -> tuple[str, ...]:
        recognition = self._spec.recognition
        if len(embeddings) < len(recognition.embeddings):
            recognition = replace(recognition, embeddings=recognition.embeddings[-1:], scale=recognition.scale[-1:])
        visible = np.ones(1, np.float32)
        (scores,) = rank_classes(embeddings, self._classifier, recognition=recognition, visibility=visible)
        return tuple(name for name, _ in top_classes(scores, self._classifier.names, top_k=_NAMES, min_score=0.0))
