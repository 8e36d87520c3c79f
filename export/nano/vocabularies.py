"""Write the vocabularies that ship with a model: class names with synonyms, and the splits of the public label sets."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from export.nano.ingredients import WORDNET, source_folder
from export.nano.text import imagenet_synsets
from export.nano.wordnet import Nouns, distinct_classes, read_nouns
from export.vocabularies import split_synonyms

COMMON_NOUNS = Path(__file__).with_name("common_nouns.txt")


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Classes in order, each a list of names of which the first is shown; base and novel are positions."""

    name: str
    title: str
    licence: str
    source: str
    classes: list[list[str]]
    splits: dict[str, list[int]] = field(default_factory=dict)

    def save(self, folder: Path) -> None:
        """Compact JSON, one class a line."""
        head = {key: getattr(self, key) for key in ("name", "title", "licence", "source")} | self.splits
        body = ",\n".join(json.dumps(names, ensure_ascii=False, separators=(",", ":")) for names in self.classes)
        opening = json.dumps(head, ensure_ascii=False)[:-1]
        (folder / f"{self.name}.json").write_text(f'{opening}, "classes": [\n{body}\n]}}\n', encoding="utf-8")


def write_vocabularies(work: Path, folder: Path, *, label_sets: Path) -> None:
    """All six files; `label_sets` is a JSON with the public facts of COCO and LVIS (names, synonyms, splits)."""
    folder.mkdir(parents=True, exist_ok=True)
    public = json.loads(label_sets.read_text(encoding="utf-8"))
    nouns = read_nouns(next(source_folder(work, WORDNET).rglob("data.noun")).parent)
    listed = [common(), coco(public["coco"]), lvis(public["lvis"])]
    of_lvis = lvis_synsets(public["lvis"], nouns)
    thousand = imagenet_synsets(work)
    usual = {synset for synset in thousand if "(" not in of_lvis.get(synset, "")}  # LVIS explains unusual senses so
    synsets = [
        distinct_classes(lemmas, nouns, is_usual=usual.__contains__)
        for lemmas in (thousand, imagenet_synsets(work, "imagenet22k_synsets.txt"))
    ]
    titles = {"imagenet": "ImageNet (1,000 classes)", "imagenet21k": "ImageNet-21k (21,841 synsets)"}
    source = "WordNet synsets and lemmas as listed in timm 1.0.31; names told apart by WordNet 3.0"
    for (name, title), classes in zip(titles.items(), synsets, strict=True):
        listed.append(Vocabulary(name, title, "WordNet licence; list Apache-2.0", source, list(classes.values())))
    for vocabulary in (*listed, union(listed[:3], synsets[0] | synsets[1], of_lvis)):
        vocabulary.save(folder)


def common() -> Vocabulary:
    """What everyday photographs hold."""
    lines = COMMON_NOUNS.read_text(encoding="utf-8").splitlines()
    classes = [[name.strip() for name in line.split(",")] for line in lines if line.strip()]
    return Vocabulary("common", f"Everyday things ({len(classes)})", "Apache-2.0", "written for this project", classes)


def coco(rows: dict[str, list[dict[str, object]]]) -> Vocabulary:
    """80 names with the synonyms published with FC-CLIP; the split of open-vocabulary COCO."""
    classes = [_names(row) for row in rows["classes"]]
    splits = {key: rows[key] for key in ("base", "novel")}
    source = "COCO 2017 names; synonyms as published with FC-CLIP; 48 base / 17 novel"
    return Vocabulary("coco", "COCO (80)", "CC-BY-4.0", source, classes, splits)  # type: ignore[arg-type]


def lvis(rows: dict[str, list[dict[str, object]]]) -> Vocabulary:
    """1,203 names; the rare ones are novel."""
    rare = [row["frequency"] == "r" for row in rows["classes"]]
    splits = {
        "base": [index for index, novel in enumerate(rare) if not novel],
        "novel": [index for index, novel in enumerate(rare) if novel],
    }
    classes = [_names(row) for row in rows["classes"]]
    return Vocabulary("lvis", "LVIS v1 (1,203)", "CC-BY-4.0", "LVIS v1 categories; rare = novel", classes, splits)


def lvis_synsets(rows: Mapping[str, Sequence[Mapping[str, str]]], nouns: Nouns) -> dict[str, str]:
    """The synsets that LVIS's classes are, with the names that it shows for them."""
    synsets = ((nouns.synset(row["synset"]), _names(row)[0]) for row in rows["classes"])
    return {synset: name for synset, name in synsets if synset}


def union(listed: Sequence[Vocabulary], synsets: Mapping[str, Sequence[str]], of_lvis: Mapping[str, str]) -> Vocabulary:
    """The classes of `listed`, then the synsets that none of them is; a shown word is no synonym of another class."""
    classes: dict[str, Sequence[str]] = {}
    for names in (names for vocabulary in listed for names in vocabulary.classes):
        classes.setdefault(names[0].lower(), names)
    for synset, names in synsets.items():
        if synset not in of_lvis:
            classes.setdefault(names[0].lower(), names)
    told_apart = [
        [shown, *(word for word in words if word.lower() not in classes)] for shown, *words in classes.values()
    ]
    source = "common, COCO, LVIS, ImageNet and ImageNet-21k without repeated classes"
    return Vocabulary("open-22k", f"Open vocabulary ({len(classes):,})", "as its parts", source, told_apart)


def _names(row: Mapping[str, object]) -> list[str]:
    """The shown name, then the synonyms, cleaned as the reference does."""
    written = [str(row["name"]), *map(str, row["synonyms"])]  # type: ignore[call-overload]
    return list(dict.fromkeys(name for text in written for name in split_synonyms(text)))
