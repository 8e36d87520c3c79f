"""The text classifier of a repository's own text encoder, without a service."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

from service.adapters.manifest import Repository
from service.adapters.tokenizer import Tokenizer
from service.adapters.vocabulary_library import FolderLibrary
from service.adapters.vocabulary_stores import FolderVocabularyStore
from service.baselines.cut_graph import CutGraph
from service.core.spec import ModelName, ModelSpec
from service.core.types import Array, Tensors, TextClassifier
from service.core.vocabularies import Vocabularies, VocabularyLimits


class TextBackend:
    """The one graph that a vocabulary needs, behind the model backend's port."""

    def __init__(self, repository: Repository, *, threads: int) -> None:
        self.spec: ModelSpec = repository.spec
        path = repository.graphs["text_encoder"].path
        self._graph = CutGraph(path, ["text_embedding"], threads=threads)

    async def run(self, model: ModelName, inputs: Tensors, *, timeout: float | None = None) -> dict[str, Array]:  # noqa: ARG002 - the port's
        """Embed texts."""
        return self._graph.run(inputs)

    async def probe(self) -> None:
        """Nothing else is served by it."""

    async def close(self) -> None:
        """Its session goes with it."""


def text_classifier(
    repository: Repository, names: Sequence[str] | None, vocabulary: str | None, *, cache: Path, threads: int
) -> TextClassifier:
    """Of these names, or of a stored vocabulary; raises UnknownVocabulary and InvalidVocabulary."""

    async def build(vocabularies: Vocabularies) -> TextClassifier:
        if names is not None:
            return await vocabularies.classifier_of(names)
        return await vocabularies.classifier("public", vocabulary or vocabularies.default)

    vocabularies = Vocabularies(
        backend=TextBackend(repository, threads=threads),
        tokenize=Tokenizer(repository.folder),
        library=FolderLibrary(repository.folder, cache=cache),
        store=FolderVocabularyStore(cache),
        limits=VocabularyLimits(),
    )
    return asyncio.run(build(vocabularies))
