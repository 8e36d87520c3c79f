"""Write the vocabularies that ship with a model: class names with synonyms, and the splits of the public label sets."""

import json
from dataclasses import dataclass, field
from pathlib import Path

from export.nano.text import imagenet_lemmas

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
    vocabularies = [common(), coco(public["coco"]), lvis(public["lvis"])]
    for name, title, synsets in (
        ("imagenet", "ImageNet (1,000 classes)", "imagenet_synsets.txt"),
        ("imagenet21k", "ImageNet-21k (21,841 synsets)", "imagenet22k_synsets.txt"),
    ):
        classes = [_unique(lemmas) for lemmas in imagenet_lemmas(work, synsets)]
        source = "WordNet synsets and lemmas as listed in timm 1.0.31"
        vocabularies.append(Vocabulary(name, title, "WordNet licence; list Apache-2.0", source, classes))
    vocabularies.append(union(vocabularies))
    for vocabulary in vocabularies:
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


def union(vocabularies: list[Vocabulary]) -> Vocabulary:
    """Every class of the others whose shown name has not come yet."""
    seen: dict[str, list[str]] = {}
    for vocabulary in vocabularies:
        for names in vocabulary.classes:
            seen.setdefault(names[0].lower(), names)
    source = "common, COCO, LVIS, ImageNet and ImageNet-21k without repeated names"
    return Vocabulary("open-22k", f"Open vocabulary ({len(seen):,})", "as its parts", source, list(seen.values()))


def _names(row: dict[str, object]) -> list[str]:
    """The shown name, then the synonyms, cleaned as the reference does (_or_ and / separate, _ is a space)."""
    written = [str(row["name"]), *map(str, row["synonyms"])]  # type: ignore[call-overload]
    cleaned = (
        part
        for name in written
        for part in name.replace("_or_", ",").replace("/", ",").replace("_", " ").lower().split(",")
    )
    return _unique([name.strip() for name in cleaned])


def _unique(names: list[str]) -> list[str]:
    return list(dict.fromkeys(name for name in names if name))
