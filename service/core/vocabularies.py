"""Class names to text classifiers: names -> templates -> text embeddings, each embedded once.

A classifier is looked for in memory, then beside the model (shipped ready-made), then on disk, and is computed at last;
a computation goes on when its caller has gone, since the next one will ask for the same.
"""

import asyncio
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from service.core.errors import InvalidVocabulary, UnknownVocabulary, Warming
from service.core.lru import ByteLru
from service.core.ports import ModelBackend, VocabularyStore
from service.core.singleflight import SingleFlight
from service.core.spec import Recognition
from service.core.types import Float32Array, TextClassifier, Vocabulary

_CHUNK = 64  # texts in a call of the text encoder: small, so that clicks get their turn in between
_MEMORY = 512 * 2**20  # bytes of classifiers kept: room for the largest shipped vocabulary twice
_TEXTS = 32 * 2**20  # bytes of single text embeddings kept for words that come again in other lists

Tokenize = Callable[[Sequence[str]], NDArray[np.int64]]


class VocabularyLibrary(Protocol):
    """The vocabularies that a model repository ships, and text embeddings kept on disk."""

    def names(self) -> Sequence[str]:
        """The shipped vocabularies."""
        ...

    def load(self, name: str) -> Vocabulary | None:
        """A shipped vocabulary."""
        ...

    def embeddings(self, name: str, digest: str) -> Float32Array | None:
        """Ready text embeddings [T, D], shipped for `name` or kept under `digest`."""
        ...

    def keep(self, digest: str, embeddings: Float32Array) -> None:
        """Keep computed text embeddings."""
        ...


@dataclass(frozen=True, slots=True)
class VocabularyLimits:
    """At most `names` class names of `characters` characters."""

    names: int = 30_000
    characters: int = 100


class Vocabularies:
    """Answers with the text classifier of a vocabulary by name, or of a request's own words."""

    def __init__(
        self,
        *,
        backend: ModelBackend,
        tokenize: Tokenize,
        library: VocabularyLibrary,
        store: VocabularyStore,
        limits: VocabularyLimits,
    ) -> None:
        self._backend = backend
        self._tokenize = tokenize
        self._library = library
        self._store = store
        self.limits = limits
        self._classifiers: ByteLru[str, TextClassifier] = ByteLru(_MEMORY)
        self._texts: ByteLru[str, Float32Array] = ByteLru(_TEXTS)
        self._flights: SingleFlight[TextClassifier] = SingleFlight()
        self._shipped: dict[str, str] = {}  # digests, which take long to make for thousands of names
        self._tasks: set[asyncio.Task[tuple[TextClassifier, bool]]] = set()
        self._progress: dict[str, tuple[int, int]] = {}

    @property
    def default(self) -> str:
        """The vocabulary that is used when a request names none."""
        return self._backend.spec.default_vocabulary

    async def names(self, tenant: str) -> list[str]:
        """All vocabularies that a tenant may name: the shipped ones, then its own."""
        shipped = list(self._library.names())
        return shipped + sorted(set(await self._store.names(tenant)) - set(shipped))

    async def find(self, tenant: str, name: str) -> Vocabulary:
        """A vocabulary by name; raises UnknownVocabulary."""
        shipped = await asyncio.to_thread(self._library.load, name)
        if shipped is not None:
            return shipped
        document = await self._store.get(tenant, name)
        if document is None:
            raise UnknownVocabulary(f"there is no vocabulary {name!r}; GET /v1/vocabularies lists them")
        fields = json.loads(document)
        templates = tuple(fields["templates"]) if fields.get("templates") else None
        return Vocabulary(name=name, classes=tuple((word,) for word in fields["names"]), templates=templates)

    async def define(self, tenant: str, name: str, *, names: Sequence[str], templates: Sequence[str] | None) -> None:
        """Keep or replace a tenant's own vocabulary; raises InvalidVocabulary."""
        if name in self._library.names():
            raise InvalidVocabulary(f"{name!r} is shipped with the model and cannot be replaced")
        words = self.check_names(names)
        for template in templates or ():
            if "{}" not in template or len(template) > self.limits.characters:
                raise InvalidVocabulary("each template needs one {} and at most 100 characters", pointer="/templates")
        document = {"names": words, "templates": list(templates) if templates else None}
        await self._store.put(tenant, name, json.dumps(document).encode())

    async def remove(self, tenant: str, name: str) -> None:
        """Forget a tenant's own vocabulary; raises UnknownVocabulary."""
        if name in self._library.names():
            raise InvalidVocabulary(f"{name!r} is shipped with the model and cannot be removed")
        if not await self._store.delete(tenant, name):
            raise UnknownVocabulary(f"there is no vocabulary {name!r}")

    def check_names(self, names: Sequence[str]) -> list[str]:
        """Names stripped, in order and without repetition; raises InvalidVocabulary."""
        if len(names) > self.limits.names:
            raise InvalidVocabulary(
                f"{len(names)} names were given; the limit is {self.limits.names}", pointer="/classify/names"
            )
        words = list(dict.fromkeys(" ".join(name.split()) for name in names))
        for word in words:
            if not word or len(word) > self.limits.characters:
                raise InvalidVocabulary(
                    f"a name needs 1 to {self.limits.characters} characters, not {word[:120]!r}",
                    pointer="/classify/names",
                )
        if not words:
            raise InvalidVocabulary("at least one name is needed", pointer="/classify/names")
        return words

    async def classifier(self, tenant: str, name: str, *, timeout: float | None = None) -> TextClassifier:
        """The classifier of a vocabulary; raises Warming when it cannot be ready within `timeout` seconds."""
        shipped = self._shipped.get(name)
        if shipped is not None:
            kept = self._classifiers.get(shipped)
            if kept is not None:
                return kept
        vocabulary = await self.find(tenant, name)
        if name in self._library.names():
            self._shipped[name] = self._digest(vocabulary)
        return await self._ready(vocabulary, timeout=timeout)

    async def classifier_of(self, names: Sequence[str], *, timeout: float | None = None) -> TextClassifier:
        """The classifier of a request's own words."""
        words = self.check_names(names)
        return await self._ready(Vocabulary(name="", classes=tuple((word,) for word in words)), timeout=timeout)

    async def close(self) -> None:
        """Stop computations under way."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _ready(self, vocabulary: Vocabulary, *, timeout: float | None) -> TextClassifier:
        digest = self._digest(vocabulary)
        kept = self._classifiers.get(digest)
        if kept is not None:
            return kept
        task = asyncio.ensure_future(self._flights.run(digest, lambda: self._compute(vocabulary, digest=digest)))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        done, _ = await asyncio.wait({task}, timeout=timeout)
        if done:
            return task.result()[0]
        ready, total = self._progress.get(digest, (0, 0))
        raise Warming(f"the vocabulary is being embedded: {ready} of {total} texts are ready", retry_after=10)

    def _templates(self, vocabulary: Vocabulary) -> tuple[str, ...]:
        return vocabulary.templates or self._backend.spec.templates

    def _digest(self, vocabulary: Vocabulary) -> str:
        """Names all that a classifier depends on."""
        splits = [sorted(vocabulary.base), sorted(vocabulary.novel)]
        content = [self._backend.spec.revision, self._templates(vocabulary), vocabulary.classes, splits]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()

    async def _compute(self, vocabulary: Vocabulary, *, digest: str) -> TextClassifier:
        embeddings = await asyncio.to_thread(self._library.embeddings, vocabulary.name, digest)
        if embeddings is None:
            words = [word for synonyms in vocabulary.classes for word in synonyms]
            embeddings = await self._embed_words(words, templates=self._templates(vocabulary), digest=digest)
            if vocabulary.name:
                await asyncio.to_thread(self._library.keep, digest, embeddings)
        classifier = build_classifier(vocabulary, embeddings, self._backend.spec.recognition)
        self._classifiers.put(digest, classifier, size=classifier.embeddings.nbytes)
        return classifier

    async def _embed_words(self, words: Sequence[str], *, templates: tuple[str, ...], digest: str) -> Float32Array:
        """Unit embeddings [T, D]: the mean over templates of unit text embeddings, at unit length (SPEC section 8)."""
        rows: dict[str, Float32Array] = {}
        missing = []
        for word in dict.fromkeys(words):
            kept = self._texts.get(f"{templates}{word}")
            if kept is None:
                missing.append(word)
            else:
                rows[word] = kept
        missing.sort(key=len)  # texts of like length share a call, so that padding costs little
        try:
            for start in range(0, len(missing), _CHUNK):
                self._progress[digest] = (start, len(missing))
                chunk = missing[start : start + _CHUNK]
                for word, row in zip(chunk, await self._embed(chunk, templates), strict=True):
                    rows[word] = row
                    self._texts.put(f"{templates}{word}", row, size=row.nbytes)
        finally:
            self._progress.pop(digest, None)
        return np.stack([rows[word] for word in words])

    async def _embed(self, words: Sequence[str], templates: tuple[str, ...]) -> Float32Array:
        total: Float32Array | None = None
        for template in templates:
            ids = self._tokenize([template.replace("{}", word) for word in words])
            answer = await self._backend.run("text_encoder", {"token_ids": ids})
            part = answer["text_embedding"].astype(np.float32)
            total = part if total is None else total + part
        if total is None:
            raise InvalidVocabulary("the model names no template")
        unit: Float32Array = total / np.maximum(np.linalg.norm(total, axis=1, keepdims=True), 1e-12)
        return unit


def build_classifier(vocabulary: Vocabulary, embeddings: Float32Array, recognition: Recognition) -> TextClassifier:
    """Put a vocabulary and its text embeddings [T, D] together; without splits every class is novel."""
    counts = [len(synonyms) for synonyms in vocabulary.classes]
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]]).astype(np.intp)
    base = np.zeros(len(counts), dtype=np.bool_)
    base[list(vocabulary.base)] = True
    excluded = None
    if vocabulary.base or vocabulary.novel:
        excluded = ~base
        excluded[list(vocabulary.novel)] = False
        excluded = excluded if excluded.any() else None
    weights = np.where(base, recognition.base, recognition.novel).astype(np.float32)
    return TextClassifier(vocabulary.names, np.ascontiguousarray(embeddings), starts, weights, excluded)
