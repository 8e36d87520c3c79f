"""`python -m export.nano.evaluate`: nano's figures on held-out sets, measured on the repository's ONNX files."""

import argparse
import dataclasses
import json
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from pycocotools import mask as coco_mask
from tqdm import tqdm

from export.nano.cutouts import load_cutouts
from export.nano.ingredients import OPENMOJI
from export.nano.photographs import load_annotated
from export.nano.runtime import BoolMask, EncodedImage, Nano, Prompt
from export.nano.scenes import UNIT_SIZE, Composer, read_scene
from export.nano.textures import UInt8Image, load_photographs

SMALLEST_OBJECT = 300
OBJECTS_PER_SCENE = 3
CLICKS = 3
DRAWINGS = 400
IMAGENET_LIKE = frozenset({"cup", "cat", "helmet", "space shuttle", "parrot", "rocket", "camera", "tripod"})
"""Nine whole objects of the photographs for whose kind ImageNet has a class."""
MARKS = ("<!-- figures -->", "<!-- end of figures -->")


@dataclass(frozen=True, slots=True)
class Target:
    """One object to be found: its mask, the place of the first click, its box xyxy and the names that are right."""

    mask: BoolMask
    click: tuple[float, float]
    box: tuple[float, float, float, float]
    names: frozenset[str] = frozenset()
    part: bool = False


Pictures = Iterator[tuple[UInt8Image, list[Target]]]

FLOORS = {
    "composites_click": (0.66, 0.80), "composites_3_clicks": (0.78, 0.90), "composites_box": (0.71, 0.86),
    "unseen_style_click": (0.63, 0.78), "unseen_style_3_clicks": (0.73, 0.88), "unseen_style_box": (0.71, 0.84),
    "coins_click": (0.75, 0.90), "coins_box": (0.90, 0.96),
    "photographs_click": (0.55, 0.80), "photographs_box": (0.65, 0.88),
    "photograph_names_top1": (6 / 9, 1.0), "drawing_names_top1": (0.25, 0.50), "drawing_names_top5": (0.45, 0.75),
    "encoder_ms": (100, 50), "decoder_ms": (15, 8),
}  # fmt: skip
"""(floor, goal); for milliseconds less is better."""


def evaluate(repository: Path, work: Path, *, photographs: Path, scenes: int) -> dict[str, float]:
    """All figures that can be measured with what is there."""
    nano = Nano(repository)
    sets: dict[str, Callable[[], Pictures]] = {
        "composites": lambda: _scenes(work, "held_out", scenes),
        "unseen_style": lambda: _scenes(work, "unseen_style", scenes),
        "coins": lambda: _photographs(photographs, only_coins=True),
        "photographs": lambda: _photographs(photographs, only_coins=False),
        "validation": lambda: _validation(work),
    }
    figures: dict[str, float] = {}
    for name, pictures in sets.items():
        figures |= {f"{name}_{key}": value for key, value in measure_masks(nano, pictures(), name).items()}
    namer = _Namer(nano, repository)
    figures |= photograph_names(namer, _photographs(photographs, only_coins=False))
    figures |= namer.measure(_validation(work), {"validation_names": lambda _: True})
    figures |= drawing_names(nano, work)
    return figures | latencies(repository)


def measure_masks(nano: Nano, pictures: Pictures, name: str) -> dict[str, float]:
    """Mean IoU per object with one click, after corrective clicks, and with a box; those of parts again, apart."""
    found = defaultdict(list)
    for image, targets in tqdm(pictures, desc=name, unit="picture"):
        encoded = nano.encode(image)
        for target in targets:
            for key, overlap in _one_object(nano, encoded, target):
                found[key].append(overlap)
                if target.part:
                    found[f"parts_{key}"].append(overlap)
    return {key: round(float(np.mean(values)), 4) for key, values in found.items()} | {"objects": len(found["click"])}


def _one_object(nano: Nano, encoded: EncodedImage, target: Target) -> Iterator[tuple[str, float]]:
    """A box; and clicks, of which each next one corrects the answer before it while there is anything to correct."""
    yield "box", iou(_segment(nano, encoded, Prompt(box=target.box))[0], target.mask)
    points: tuple[tuple[float, float, int], ...] = ((*target.click, 1),)
    mask, previous = _segment(nano, encoded, Prompt(points))
    yield "click", iou(mask, target.mask)
    while len(points) < CLICKS and (mask != target.mask).any():
        points = (*points, correction(mask, target.mask))
        mask, previous = _segment(nano, encoded, Prompt(points), previous)
    yield f"{CLICKS}_clicks", iou(mask, target.mask)


def correction(found: BoolMask, true: BoolMask) -> tuple[float, float, int]:
    """The next click (x, y, label): the pixel deepest inside all that is missed, or all that is too much.

    The service's own evaluation (service/evaluation/prompts.py) clicks by the same rule.
    """
    (missed, missed_depth), (excess, excess_depth) = (deepest_pixel(area) for area in (true & ~found, found & ~true))
    return (*missed, 1) if missed_depth >= excess_depth else (*excess, 0)


def _segment(nano: Nano, encoded: EncodedImage, prompt: Prompt, previous: Any = None) -> tuple[BoolMask, Any]:
    """The mask, and its logits as a service keeps them for the next click: cleaned up, in float16."""
    logits = nano.clean(nano.decode(encoded, prompt, previous=previous), prompt, encoded=encoded)
    return nano.restore(logits, encoded), logits.astype(np.float16).astype(np.float32)


def iou(found: BoolMask, true: BoolMask) -> float:
    """Intersection over union; 1 for two empty masks."""
    union = int(np.count_nonzero(found | true))
    return int(np.count_nonzero(found & true)) / union if union else 1.0


def _scenes(work: Path, split: str, count: int) -> Pictures:
    for index in range(count):
        scene = read_scene(work, split, index)
        rng = np.random.default_rng([3, index])
        areas = np.bincount(scene.labels.reshape(-1), minlength=2)[1:]
        labels = rng.permutation(np.flatnonzero(areas >= SMALLEST_OBJECT) + 1)[:OBJECTS_PER_SCENE]
        yield scene.image, [_exact(scene.labels == label) for label in labels]


def _exact(mask: BoolMask) -> Target:
    x, y, width, height = cv2.boundingRect(mask.astype(np.uint8))
    return Target(mask, deepest_pixel(mask)[0], (x, y, x + width, y + height))


def deepest_pixel(area: BoolMask) -> tuple[tuple[float, float], float]:
    """(x, y) of the pixel farthest from the outside of an area, and how far it is."""
    depth = cv2.distanceTransform(np.pad(area, 1).astype(np.uint8), cv2.DIST_L2, 5)[1:-1, 1:-1]
    place = int(depth.argmax())
    return (float(place % area.shape[1]), float(place // area.shape[1])), float(depth.max())


def _validation(work: Path) -> Pictures:
    """The recipe's own photographs that are not trained on: to choose weights by, so that the others stay unseen."""
    for photograph in load_annotated(work, validation=True):
        areas = np.count_nonzero(photograph.masks, axis=(1, 2))
        targets = []
        rows = zip(photograph.masks, photograph.kinds, photograph.nouns, areas, strict=True)
        for mask, kind, noun, area in rows:
            beside = mask & ~photograph.masks[areas < area].any(0)
            if kind != "stuff" and beside.any():
                click, names = deepest_pixel(beside)[0], frozenset({noun} if noun else ())
                targets.append(dataclasses.replace(_exact(mask), click=click, names=names, part=kind == "part"))
        yield photograph.image, targets


def _photographs(folder: Path, *, only_coins: bool) -> Pictures:
    """The hand-drawn set; its coins (two dozen look-alikes of one picture) are counted apart."""
    table = json.loads((folder / "annotations.json").read_text(encoding="utf-8"))
    names = {row["id"]: frozenset(row["synonyms"]) for row in table["categories"]}
    for picture in table["images"]:
        if picture["kind"] != "photograph" or (picture["file_name"] == "coins.jpg") != only_coins:
            continue
        image = cv2.cvtColor(cv2.imread(str(folder / "images" / picture["file_name"])), cv2.COLOR_BGR2RGB)
        rows = [row for row in table["annotations"] if row["image_id"] == picture["id"]]
        yield image, [_drawn(row, image.shape[:2], names=names[row["category_id"]]) for row in rows]


def _drawn(row: Any, size: tuple[int, ...], *, names: frozenset[str]) -> Target:
    x, y, width, height = row["bbox"]
    mask = _coco_mask(row["segmentation"], size)
    return Target(mask, tuple(row["point"]), (x, y, x + width, y + height), names, bool(row["part"]))


def _coco_mask(segmentation: Any, size: tuple[int, ...]) -> BoolMask:
    encoded = (
        coco_mask.merge(coco_mask.frPyObjects(segmentation, *size)) if isinstance(segmentation, list) else segmentation
    )
    return coco_mask.decode(encoded).astype(np.bool_)


class _Namer:
    """Names what one click finds, from the `common` vocabulary."""

    def __init__(self, nano: Nano, repository: Path) -> None:
        path = repository / "text_encoder/vocabularies/common.json"
        self.nano = nano
        self.classes = [frozenset(names) for names in json.loads(path.read_text(encoding="utf-8"))["classes"]]
        self.known = frozenset[str]().union(*self.classes)
        self.texts = nano.text([name for names in self.classes for name in names])
        self.owners = np.repeat(np.arange(len(self.classes)), [len(names) for names in self.classes])

    def measure(self, pictures: Pictures, groups: dict[str, Callable[[Target], bool]]) -> dict[str, float]:
        """Top-1, top-5 and number of the objects of each group; a synonym of the true name counts."""
        hits = defaultdict(list)
        for image, targets in pictures:
            encoded = self.nano.encode(image)
            for target in (target for target in targets if target.names & self.known):
                hit = [bool(target.names & names) for names in self.likeliest(encoded, target)]
                for group in (group for group, holds in groups.items() if holds(target)):
                    hits[group].append(hit)
        return {
            f"{group}_{key}": round(value, 4)
            for group, rows in hits.items()
            for key, value in (
                ("top1", float(np.mean([row[0] for row in rows]))),
                ("top5", float(np.mean([any(row) for row in rows]))),
                ("objects", len(rows)),
            )
        }

    def likeliest(self, encoded: EncodedImage, target: Target) -> list[frozenset[str]]:
        """The five best classes."""
        prompt = Prompt(((*target.click, 1),))
        logits = self.nano.clean(self.nano.decode(encoded, prompt), prompt, encoded=encoded)
        scores = self.nano.scores(self.nano.embed(encoded, logits), self.texts)
        best = np.zeros(len(self.classes), np.float32)
        np.maximum.at(best, self.owners, scores)
        return [self.classes[index] for index in np.argsort(-best)[:5]]


def photograph_names(namer: _Namer, pictures: Pictures) -> dict[str, float]:
    """Objects clicked on photographs: those whose kind ImageNet has, every whole one, and parts."""
    groups: dict[str, Callable[[Target], bool]] = {
        "photograph_names": lambda target: not target.part and bool(target.names & IMAGENET_LIKE),
        "photograph_names_all": lambda target: not target.part,
        "photograph_part_names": lambda target: target.part,
    }
    return namer.measure(pictures, groups)


def drawing_names(nano: Nano, work: Path) -> dict[str, float]:
    """Seen drawings, four newly placed on a surface, among all names of the emoji that were trained on."""
    cutouts = [
        c for c in load_cutouts(work) if not c.held_out and c.source != OPENMOJI.folder and "clipart" not in c.source
    ]
    names = sorted({cutout.name for cutout in cutouts})
    texts = nano.text(names)
    composer = Composer(work, cutouts, load_photographs(work, held_out=True))
    rng = np.random.default_rng(5)
    ranks = []
    for _ in tqdm(range(DRAWINGS // 4), desc="drawings", unit="picture"):
        drawn = [cutouts[index] for index in rng.integers(len(cutouts), size=4)]
        image, masks = composer.grid(rng, drawn, UNIT_SIZE, columns=2)
        encoded = nano.encode(image)
        for cutout, mask in zip(drawn, masks, strict=True):
            covered = cv2.resize(mask.astype(np.float32), (nano.side, nano.side), interpolation=cv2.INTER_AREA)
            scores = nano.scores(nano.embed(encoded, covered - 0.5), texts)
            ranks.append(int((scores > scores[names.index(cutout.name)]).sum()))
    top1, top5 = (round(float(np.mean(np.array(ranks) < k)), 4) for k in (1, 5))
    return {"drawing_names_top1": top1, "drawing_names_top5": top5, "drawing_names_classes": len(names)}


def latencies(repository: Path, repeats: int = 15) -> dict[str, float]:
    """Milliseconds of one image and of one click on one thread; the fastest run, since the machine may be shared."""
    nano = Nano(repository, threads=1)
    image = np.random.default_rng(0).integers(0, 255, (nano.size, nano.size, 3), np.uint8)
    times: dict[str, list[float]] = {"encoder_ms": [], "decoder_ms": []}
    for _ in range(repeats):
        start = time.perf_counter()
        encoded = nano.encode(image)
        middle = time.perf_counter()
        nano.decode(encoded, Prompt(((200, 200, 1),)))
        times["encoder_ms"].append(1e3 * (middle - start))
        times["decoder_ms"].append(1e3 * (time.perf_counter() - middle))
    return {name: round(min(values), 1) for name, values in times.items()}


def holds_floor(name: str, value: float) -> bool:
    """Whether a figure is good enough to ship; names of `FLOORS` only."""
    floor = FLOORS[name][0]
    return value <= floor if name.endswith("_ms") else value >= floor


def table(figures: dict[str, float]) -> str:
    """Markdown: value, floor and goal of every figure that has them, then the rest."""
    lines = ["| figure | value | floor | goal |", "|---|---|---|---|"]
    for name, (floor, goal) in FLOORS.items():
        if name in figures:
            note = "" if holds_floor(name, figures[name]) else " (below the floor)"
            lines.append(f"| {name} | {figures[name]:.2f}{note} | {floor:.2f} | {goal:.2f} |")
    lines += [f"| {name} | {figures[name]:.2f} | | |" for name in sorted(figures.keys() - FLOORS.keys())]
    return "\n".join(lines)


def write(repository: Path, figures: dict[str, float]) -> None:
    """Into the manifest's `quality` and between the marks of the model card."""
    path, card = repository / "manifest.json", repository / "README.md"
    manifest = json.loads(path.read_text(encoding="utf-8")) | {"quality": figures}
    path.write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    before, _, rest = card.read_text(encoding="utf-8").partition(MARKS[0])
    after = rest.partition(MARKS[1])[2]
    card.write_text(f"{before}{MARKS[0]}\n{table(figures)}\n{MARKS[1]}{after}", encoding="utf-8")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m export.nano.evaluate", description=__doc__)
    parser.add_argument("--repository", type=Path, default=Path("model_repository"), help="model repository to measure")
    parser.add_argument("--work", type=Path, default=Path("build/nano"), help="folder with the prepared scenes")
    parser.add_argument("--photographs", type=Path, default=Path("tests/evaluation_set"), help="hand-drawn masks")
    parser.add_argument("--scenes", type=int, default=150, help="scenes per composed set")
    parser.add_argument("--write", action="store_true", help="put the figures into manifest and model card")
    arguments = parser.parse_args()
    figures = evaluate(arguments.repository, arguments.work, photographs=arguments.photographs, scenes=arguments.scenes)
    print(table(figures))
    if arguments.write:
        write(arguments.repository, figures)


if __name__ == "__main__":
    main()
