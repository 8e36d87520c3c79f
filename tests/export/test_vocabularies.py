"""Names to text embeddings: splitting, templates, resuming, and the files the service reads."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from export.labels import Float32Array
from export.repository import read_manifest, revision_of
from export.vocabularies import TextEmbedder, add_vocabulary, ranking_milliseconds, read_names, split_synonyms


@pytest.mark.parametrize(
    ("name", "synonyms"),
    [
        ("person,child,girl", ["person", "child", "girl"]),
        ("tv_monitor_or_screen", ["tv monitor", "screen"]),
        ("Fire/Hydrant", ["fire", "hydrant"]),
        ("tape_(sticky_cloth_or_paper)", ["tape (sticky cloth or paper)"]),
        (
            "wiper_(for_windshield/screen),bow_(weapon)_or_longbow",
            ["wiper (for windshield/screen)", "bow (weapon)", "longbow"],
        ),
        ("teddy bear,Teddy's bears, ", ["teddy bear", "teddy's bears"]),
    ],
)
def test_a_name_is_split_as_data_sets_write_it(name: str, synonyms: list[str]) -> None:
    assert split_synonyms(name) == synonyms


def test_names_are_read_from_text_lists_and_vocabularies(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("Cup_or_mug\n\nhot_dog\n")
    (tmp_path / "names.json").write_text('["cup,mug", ["hot dog"]]')
    (tmp_path / "full.json").write_text('{"name": "old", "classes": [["cup", "mug"], ["hot dog"]], "base": [0]}')
    for file in ("names.txt", "names.json", "full.json"):
        vocabulary = read_names(tmp_path / file, name="mine")
        assert vocabulary["name"] == "mine"
        assert vocabulary["classes"] == [["cup", "mug"], ["hot dog"]]
    assert vocabulary["base"] == [0]


def test_a_name_stands_for_the_unit_mean_of_its_sentences(tiny_repository: Path) -> None:
    embed = TextEmbedder(tiny_repository)
    sentences = embed.texts([template.replace("{}", "hot dog") for template in embed.templates])
    expected = sentences.mean(0) / np.linalg.norm(sentences.mean(0))
    np.testing.assert_allclose(embed.names(["a much longer name", "hot dog"])[1], expected, atol=1e-5)


def test_embeddings_follow_the_classes_and_the_manifest_covers_them(own_repository: Path) -> None:
    vocabulary = read_names(own_repository / "text_encoder/vocabularies/few.json", name="few")
    before = read_manifest(own_repository)["revision"]
    path = add_vocabulary(TextEmbedder(own_repository), vocabulary)
    with np.load(path) as arrays:
        embeddings, classes = arrays["embeddings"], arrays["classes"]
    assert classes.tolist() == [0, 0, 1, 1, 2]
    embed = TextEmbedder(own_repository)
    np.testing.assert_allclose(
        embeddings, embed.names(["person", "child", "tv monitor", "screen", "hot dog"]), atol=1e-3
    )
    manifest = read_manifest(own_repository)
    assert "text_encoder/vocabularies/few.npz" in manifest["files"]
    assert manifest["revision"] == revision_of(manifest["files"]) != before
    assert [leftover.name for leftover in path.parent.glob(".*")] == []
    assert ranking_milliseconds(path) > 0


class _Interrupted(TextEmbedder):
    """Embeds one chunk, then the power fails."""

    chunks = 0

    def names(self, names: Sequence[str]) -> Float32Array:
        self.chunks += 1
        if self.chunks > 1:
            raise KeyboardInterrupt
        return super().names(names)


class _Counting(TextEmbedder):
    """Counts the names it is asked for."""

    asked = 0

    def names(self, names: Sequence[str]) -> Float32Array:
        self.asked += len(names)
        return super().names(names)


def test_an_interrupted_run_goes_on_where_it_stopped(own_repository: Path) -> None:
    words = [[f"thing {index:03d}"] for index in range(70)]
    vocabulary = {"name": "things", "classes": words}
    with pytest.raises(KeyboardInterrupt):
        add_vocabulary(_Interrupted(own_repository), vocabulary)
    assert not (own_repository / "text_encoder/vocabularies/things.npz").exists()
    embed = _Counting(own_repository)
    path = add_vocabulary(embed, vocabulary)
    assert embed.asked == 70 - 32
    with np.load(path) as arrays:
        assert np.linalg.norm(arrays["embeddings"].astype(np.float32), axis=1) == pytest.approx(1, abs=2e-3)
    assert json.loads(path.with_suffix(".json").read_text())["classes"] == words
