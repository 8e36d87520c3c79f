"""Opens the recognisers of a model repository for `ovsam evaluate`."""

from collections.abc import Collection
from pathlib import Path

from service.adapters.manifest import read_repository
from service.baselines.classifier import text_classifier
from service.baselines.panel import KINDS, Panel
from service.baselines.recognisers import FEATURE_OUTPUT
from service.client.options import SegmentOptions
from service.settings import Settings


class Baselines:
    """Recognisers in this process, with the threads and the folder of text embeddings that the settings name."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def kinds(self, repository: Path) -> Collection[str]:
        """All, but for feature-crop where a region encoder pools by itself and does not offer it."""
        read = read_repository(repository)
        pools_alone = read.spec.region_takes_masks and FEATURE_OUTPUT not in read.graphs["region_encoder"].outputs
        return [kind for kind in KINDS if kind != "feature-crop" or not pools_alone]

    def open(self, repository: Path, kinds: Collection[str], options: SegmentOptions) -> Panel:
        """Recognisers that choose among the names or the vocabulary of `options`."""
        read, threads = read_repository(repository), self._settings.call_threads
        names, vocabulary = options.get("names"), options.get("vocabulary")
        classifier = text_classifier(read, names, vocabulary, cache=self._settings.cache_dir, threads=threads)
        return Panel(read, classifier, kinds=kinds, threads=threads)
