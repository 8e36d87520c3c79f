"""Class names of the shipped vocabularies: every synset has a readable name of its own, and the union repeats none."""

from pathlib import Path

import pytest

from export.nano.vocabularies import Vocabulary, union
from export.nano.wordnet import Nouns, distinct_classes, read_nouns

# Lines as WordNet writes them: offset, file number, type, words, pointers | gloss; word, pointers, senses, offsets.
DATA = """\
  1 This software and database is being provided to you
00000001 06 n 01 thing 0 001 ~ 00000002 n 0000 | what is
00000002 05 n 01 bird 0 001 @ 00000001 n 0000 | has feathers
00000003 06 n 02 lifting_device 0 lifter 0 001 @ 00000001 n 0000 | lifts
00000004 05 n 02 crane 0 wading_crane 0 001 @ 00000002 n 0000 | wades
00000005 06 n 01 crane 1 002 %p 00000001 n 0000 @ 00000003 n 0000 | lifts
00000006 20 n 02 banana 0 banana_tree 0 001 @ 00000001 n 0000 | grows
00000007 13 n 01 banana 0 001 @ 00000001 n 0000 | is eaten
00000008 13 n 02 sausage 0 dog 0 001 @ 00000001 n 0000 | is eaten
00000009 05 n 01 dog 0 001 @ 00000001 n 0000 | barks
"""
INDEX = """\
  1 This software and database is being provided to you
banana n 2 1 @ 2 0 00000007 00000006
crane n 3 1 @ 3 0 00000001 00000005 00000004
dog n 2 1 @ 2 0 00000009 00000008
sausage n 1 1 @ 1 0 00000008
wading_crane n 1 1 @ 1 0 00000004
"""


@pytest.fixture
def nouns(tmp_path: Path) -> Nouns:
    (tmp_path / "data.noun").write_text(DATA)
    (tmp_path / "index.noun").write_text(INDEX)
    return read_nouns(tmp_path)


def lemmas(nouns: Nouns, *offsets: int) -> dict[str, list[str]]:
    return {f"n{offset:08d}": list(nouns.words[f"n{offset:08d}"]) for offset in offsets}


def unknown(_: str) -> bool:
    return False


def test_wordnet_tells_kinds_and_senses(nouns: Nouns) -> None:
    assert list(nouns.kinds("n00000005")) == ["lifting device", "thing"]
    assert nouns.sense("Crane", "n00000004") == 3
    assert nouns.synset("crane.n.02") == "n00000005"
    assert nouns.synset("crane.n.00") is None
    assert nouns.synset("stop_sign.n.01") is None


def test_a_word_stays_with_its_first_sense_and_others_take_a_longer_word(nouns: Nouns) -> None:
    classes = distinct_classes(lemmas(nouns, 6, 7), nouns, is_usual=unknown)
    assert list(classes.values()) == [["banana tree"], ["banana"]]


def test_a_word_without_a_usual_sense_is_explained_everywhere(nouns: Nouns) -> None:
    classes = distinct_classes(lemmas(nouns, 4, 5), nouns, is_usual=unknown)
    assert list(classes.values()) == [["wading crane"], ["crane (lifting device)"]]


def test_the_one_usual_synset_keeps_the_word(nouns: Nouns) -> None:
    classes = distinct_classes(lemmas(nouns, 4, 5), nouns, is_usual="n00000005".__eq__)
    assert classes["n00000005"] == ["crane"]


def test_a_shown_word_is_no_synonym_of_another_class(nouns: Nouns) -> None:
    classes = distinct_classes(lemmas(nouns, 8, 9), nouns, is_usual=unknown)
    assert list(classes.values()) == [["sausage"], ["dog"]]


def test_the_union_has_every_class_once() -> None:
    """LVIS's classes are synsets by number, other lists' by name; words stay with the class that shows them."""
    listed = Vocabulary("lvis", "LVIS", "", "", [["bow (weapon)", "bow"], ["Dog", "hound"], ["dog"]])
    synsets = {
        "n1": ["bow", "longbow"],
        "n2": ["dog", "domestic dog"],
        "n3": ["hound"],
        "n4": ["knot", "bowknot", "dog"],
    }
    both = union([listed], synsets, {"n1": "bow (weapon)"})
    assert both.classes == [["bow (weapon)", "bow"], ["Dog"], ["hound"], ["knot", "bowknot"]]
    assert both.title == "Open vocabulary (4)"
