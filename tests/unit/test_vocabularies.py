"""Names become classifiers once; wrong names are refused; a slow start is told."""

import asyncio
from pathlib import Path

import numpy as np
import pytest

from service.adapters.vocabulary_stores import FolderVocabularyStore
from service.core.errors import InvalidVocabulary, UnknownVocabulary, Warming
from service.core.spec import ModelName
from service.core.types import Array, Tensors
from service.core.vocabularies import Vocabularies, VocabularyLimits
from tests.fakes import FakeBackend, FakeLibrary, fake_tokens


def vocabularies(folder: Path, backend: FakeBackend, library: FakeLibrary | None = None) -> Vocabularies:
    return Vocabularies(
        backend=backend,
        tokenize=fake_tokens,
        library=library or FakeLibrary(),
        store=FolderVocabularyStore(folder),
        limits=VocabularyLimits(names=10),
    )


async def test_a_shipped_vocabulary_is_embedded_once_and_kept_on_disk(tmp_path: Path) -> None:
    backend, library = FakeBackend(), FakeLibrary()
    first = await vocabularies(tmp_path, backend, library).classifier("t", "common")
    assert first.names == ("red", "green", "blue")
    assert np.array_equal(first.embeddings, np.eye(3, dtype=np.float32))
    calls = backend.calls["text_encoder"]
    again = await vocabularies(tmp_path, backend, library).classifier("t", "common")
    assert np.array_equal(again.embeddings, first.embeddings)
    assert backend.calls["text_encoder"] == calls


async def test_words_that_come_again_are_not_embedded_again(tmp_path: Path) -> None:
    backend = FakeBackend()
    ready = vocabularies(tmp_path, backend)
    await ready.classifier_of(["red", "green"])
    calls = backend.calls["text_encoder"]
    mixed = await ready.classifier_of([" green ", "red", "red"])
    assert mixed.names == ("green", "red")
    assert backend.calls["text_encoder"] == calls


async def test_concurrent_requests_share_one_embedding(tmp_path: Path) -> None:
    backend = FakeBackend()
    ready = vocabularies(tmp_path, backend)
    await asyncio.gather(*(ready.classifier_of(["red", "green"]) for _ in range(20)))
    assert backend.calls["text_encoder"] == 1


async def test_own_vocabularies_belong_to_their_tenant(tmp_path: Path) -> None:
    ready = vocabularies(tmp_path, FakeBackend())
    await ready.define("a", "mine", names=["red"], templates=["a {}"])
    assert "mine" in await ready.names("a")
    assert (await ready.find("a", "mine")).templates == ("a {}",)
    with pytest.raises(UnknownVocabulary):
        await ready.find("b", "mine")
    await ready.remove("a", "mine")
    with pytest.raises(UnknownVocabulary):
        await ready.remove("a", "mine")


@pytest.mark.parametrize("names", [[], [""], ["  "], ["x" * 101], ["a"] * 11])
async def test_unusable_names_are_refused(tmp_path: Path, names: list[str]) -> None:
    ready = vocabularies(tmp_path, FakeBackend())
    with pytest.raises(InvalidVocabulary):
        await ready.classifier_of(names)
    with pytest.raises(InvalidVocabulary):
        await ready.define("a", "mine", names=names, templates=None)


async def test_a_shipped_name_cannot_be_taken_and_templates_need_a_place(tmp_path: Path) -> None:
    ready = vocabularies(tmp_path, FakeBackend())
    with pytest.raises(InvalidVocabulary):
        await ready.define("a", "common", names=["x"], templates=None)
    with pytest.raises(InvalidVocabulary):
        await ready.define("a", "mine", names=["x"], templates=["a photo"])


async def test_what_takes_too_long_goes_on_in_the_background(tmp_path: Path) -> None:
    class SlowText(FakeBackend):
        gate = asyncio.Event()

        async def run(self, model: ModelName, inputs: Tensors, *, timeout: float | None = None) -> dict[str, Array]:
            await self.gate.wait()
            return await super().run(model, inputs, timeout=timeout)

    backend = SlowText()
    ready = vocabularies(tmp_path, backend)
    with pytest.raises(Warming, match="0 of 2"):
        await ready.classifier_of(["red", "green"], timeout=0.05)
    backend.gate.set()
    assert (await ready.classifier_of(["red", "green"], timeout=5)).names == ("red", "green")
    assert backend.calls["text_encoder"] == 1
