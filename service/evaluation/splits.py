"""Which classes count as base or novel (open-vocabulary COCO) and as rare, common or frequent (LVIS v1)."""

import json
from collections.abc import Collection, Mapping
from pathlib import Path

FREQUENCIES = {"r": "rare", "c": "common", "f": "frequent"}


def plain_name(name: str) -> str:
    """A class name as the vocabularies spell it, so that names of several sources can be compared."""
    return " ".join(name.replace("_", " ").lower().split())


def splits_of(names: Collection[str]) -> Mapping[str, str]:
    """Plain class name to split, of the data set whose classes are all among `names`; empty for other data."""
    plain = {plain_name(name) for name in names}
    document = json.loads(Path(__file__).with_name("splits.json").read_text(encoding="utf-8"))
    for groups in document.values():
        splits = {name: split for split, members in groups.items() for name in members}
        if splits.keys() <= plain:
            return splits
    return {}
