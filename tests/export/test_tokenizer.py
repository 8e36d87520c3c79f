"""CLIP's byte-pair tokenizer as a file."""

import pytest
from tokenizers import Tokenizer

from export.tokenizer import build_tokenizer
from tests.export.tiny_network import TINY


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    """The tokenizer, as built."""
    return build_tokenizer(TINY.text)


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("a photo of a person.", [49406, 320, 1125, 539, 320, 2533, 269, 49407]),
        ("This is a photo of a person", [49406, 589, 533, 320, 1125, 539, 320, 2533, 49407]),
        ("A  PHOTO\tof a Person.", [49406, 320, 1125, 539, 320, 2533, 269, 49407]),
        ("a large teddy's bears", [49406, 320, 3638, 11798, 568, 6182, 49407]),
        ("", [49406, 49407]),
    ],
)
def test_texts_become_the_ids_of_clip(tokenizer: Tokenizer, text: str, ids: list[int]) -> None:
    assert tokenizer.encode(text).ids == ids


def test_a_long_text_is_cut_with_the_end_mark_last(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("a " * 100).ids
    assert len(ids) == 77
    assert ids[-1] == 49407


def test_a_batch_is_padded_with_zeros_to_its_longest_text(tokenizer: Tokenizer) -> None:
    short, long = tokenizer.encode_batch(["a", "a photo of a person."])
    assert short.ids == [49406, 320, 49407, 0, 0, 0, 0, 0]
    assert len(long.ids) == 8


def test_every_id_of_the_text_tower_has_a_word(tokenizer: Tokenizer) -> None:
    assert tokenizer.get_vocab_size() == TINY.text.vocabulary
