"""A readable name of its own for every ImageNet synset, where WordNet gives several the same word.

A word stays with the synset that it usually means; the others say which they are: by a longer word of their own
("banana tree"), else by what they are a kind of, as LVIS writes it ("crane (wading bird)").
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_HYPERNYMS = ("@", "@i")


@dataclass(frozen=True, slots=True)
class Nouns:
    """WordNet's nouns: the words and the hypernyms of each synset ("n02012849"), and the synsets of each word."""

    words: Mapping[str, Sequence[str]]
    hypernyms: Mapping[str, Sequence[str]]
    senses: Mapping[str, Sequence[str]]

    def sense(self, word: str, synset: str) -> int:
        """How usual it is to mean `synset` by `word`, 1 first."""
        return self.senses[_key(word)].index(synset) + 1

    def synset(self, name: str) -> str | None:
        """The synset that LVIS writes as "bow.n.04", or None where WordNet has none."""
        word, _, sense = name.rsplit(".", 2)
        synsets = self.senses.get(_key(word), ())
        return synsets[int(sense) - 1] if 1 <= int(sense) <= len(synsets) else None

    def kinds(self, synset: str) -> Iterator[str]:
        """What a synset is a kind of, nearest first."""
        while parents := self.hypernyms[synset]:
            synset = parents[0]
            yield self.words[synset][0]


def read_nouns(folder: Path) -> Nouns:
    """`data.noun` and `index.noun` of WordNet 3.0, whose offsets are ImageNet's synset numbers."""
    words, hypernyms, senses = {}, {}, {}
    for line in _lines(folder / "data.noun"):
        fields = line.split(" | ", 1)[0].split()
        count = int(fields[3], 16)
        pointers = fields[5 + 2 * count :]
        synset = f"n{fields[0]}"
        words[synset] = [word.replace("_", " ") for word in fields[4 : 4 + 2 * count : 2]]
        hypernyms[synset] = [
            f"n{target}" for kind, target in zip(pointers[::4], pointers[1::4], strict=False) if kind in _HYPERNYMS
        ]
    for line in _lines(folder / "index.noun"):
        fields = line.split()
        senses[fields[0]] = [f"n{offset}" for offset in fields[-int(fields[2]) :]]
    return Nouns(words, hypernyms, senses)


def distinct_classes(
    lemmas: Mapping[str, Sequence[str]], nouns: Nouns, *, is_usual: Callable[[str], bool]
) -> dict[str, list[str]]:
    """For each synset its words, the first of which is shown and no other synset's.

    A word shared by several stays with the one for which alone `is_usual` holds, else with WordNet's first sense, else
    with none. A word that is shown for one synset is no synonym of another.
    """
    sharing: dict[str, list[str]] = defaultdict(list)
    for synset, words in lemmas.items():
        sharing[words[0].lower()].append(synset)
    owners = {word: _owner(word, synsets, nouns, is_usual) for word, synsets in sharing.items()}
    shown = {owner: lemmas[owner][0] for owner in owners.values() if owner}
    taken = set(sharing)
    for synset in lemmas:
        if synset not in shown:
            shown[synset] = next(name for name in _names(lemmas[synset], synset, nouns) if name.lower() not in taken)
            taken.add(shown[synset].lower())
    return {
        synset: [shown[synset], *dict.fromkeys(word for word in words if word.lower() not in taken)]
        for synset, words in lemmas.items()
    }


def _owner(word: str, synsets: Sequence[str], nouns: Nouns, is_usual: Callable[[str], bool]) -> str | None:
    if len(synsets) == 1:
        return synsets[0]
    usual = [synset for synset in synsets if is_usual(synset)]
    first = [synset for synset in synsets if nouns.sense(word, synset) == 1]
    return next((found[0] for found in (usual, first) if len(found) == 1), None)


def _names(words: Sequence[str], synset: str, nouns: Nouns) -> Iterator[str]:
    """What a synset may be called when its first word is another's, best first."""
    word, *others = words
    yield from (other for other in others if word.lower() in other.lower().split())
    yield from (f"{word} ({kind})" for kind in (*nouns.kinds(synset), *others))


def _lines(path: Path) -> Iterator[str]:
    """The lines of one of WordNet's files after its licence."""
    return (line for line in path.read_text(encoding="utf-8").splitlines() if line and not line.startswith(" "))


def _key(word: str) -> str:
    return word.replace(" ", "_").lower()
