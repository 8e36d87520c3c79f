"""Classes that ImageNet does not have (people, faces, trees, sky ...), learnt from the photographs' nouns.

They stand beside the trunk's own 1000 under one softmax. Those stay as they are and keep what they know: what has no
noun of the new ones is taught to be none of them.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

from export.nano.graphs import INPUT_SIZE, Classifier, at_two_scales, pool
from export.nano.ingredients import TRUNK, source_folder
from export.nano.photographs import BoolMasks, Photograph, load_annotated, window
from export.nano.prompts import recolour
from export.nano.text import TextEncoder
from export.nano.textures import Rng, UInt8Image
from export.nano.train import halve, normalise
from export.nano.trunk import Trunk, load_trunk

SMALLEST_MASK = 120
"""Pixels of the model frame."""
BROADER = {"man": "person", "woman": "person", "paw": "foot"}
"""Too few photographs tell them apart."""


@dataclass(frozen=True, slots=True)
class ClassesConfig:
    """How often each photograph is seen, and how its classes learn from it."""

    views: int = 24
    photographs: int = 3
    """A noun that fewer of them show is no class."""
    steps: int = 600
    batch: int = 512
    learning_rate: float = 2e-3
    weight_decay: float = 1.0
    dropout: float = 0.5
    others: float = 8.0
    """Share of what has no class, in shares of a class whose number of examples is the same."""
    seed: int = 5


@dataclass(frozen=True, slots=True)
class Examples:
    """Pooled features [R,1392] of masks in views of photographs; of each row its noun and its photograph."""

    features: Tensor
    nouns: tuple[str | None, ...]
    photographs: tuple[int, ...]


@torch.no_grad()
def photographed_examples(work: Path, config: ClassesConfig) -> Examples:
    """Each training photograph whole and in windows, every mask that lies within pooled as the region encoder does."""
    trunk = load_trunk(source_folder(work, TRUNK))[0]
    features, nouns, photographs = [], [], []
    for number, photograph in enumerate(tqdm(load_annotated(work), "photographs", unit="picture")):
        rng = np.random.default_rng([config.seed, number])
        for image, masks, valid, shown in _views(rng, photograph, config.views):
            features.append(_pooled(trunk, image, masks, valid))
            nouns.extend(photograph.nouns[index] for index in shown)
            photographs.extend([number] * len(shown))
    return Examples(torch.cat(features), tuple(BROADER.get(noun or "", noun) for noun in nouns), tuple(photographs))


_View = tuple[UInt8Image, BoolMasks, NDArray[np.int32], list[int]]


def _views(rng: Rng, photograph: Photograph, count: int) -> Iterator[_View]:
    """Image, masks, valid size, and the masks' places in the photograph."""
    for index in range(count):
        if index == 0:
            image, masks, valid = _whole(photograph)
        else:
            image, masks, valid = window(rng, photograph, INPUT_SIZE, around=int(rng.integers(len(photograph.masks))))
            image = recolour(rng, image)
        shown = [
            place
            for place, (mask, kind) in enumerate(zip(masks, photograph.kinds, strict=True))
            if np.count_nonzero(mask) >= SMALLEST_MASK and (index == 0 or kind == "stuff" or _edges(mask, valid) < 2)
        ]
        if shown:
            yield image, masks[shown], valid, shown


def _whole(photograph: Photograph) -> tuple[UInt8Image, BoolMasks, NDArray[np.int32]]:
    height, width = photograph.image.shape[:2]
    scale = INPUT_SIZE / max(height, width)
    size = round(width * scale), round(height * scale)
    image = np.zeros((INPUT_SIZE, INPUT_SIZE, 3), np.uint8)
    masks = np.zeros((len(photograph.masks), INPUT_SIZE, INPUT_SIZE), np.bool_)
    image[: size[1], : size[0]] = cv2.resize(
        photograph.image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    )
    for target, mask in zip(masks, photograph.masks, strict=True):
        target[: size[1], : size[0]] = cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
    return image, masks, np.array(size[::-1], np.int32)


def _edges(mask: NDArray[np.bool_], valid: NDArray[np.int32]) -> int:
    """How many edges of the view a mask touches; at two or more it may be cut off."""
    x, y, width, height = cv2.boundingRect(mask.astype(np.uint8))
    return (x == 0) + (y == 0) + (x + width >= valid[1]) + (y + height >= valid[0])


def _pooled(trunk: Trunk, image: UInt8Image, masks: BoolMasks, valid: NDArray[np.int32]) -> Tensor:
    frame = normalise(torch.from_numpy(image)[None], torch.from_numpy(valid)[None])
    covered = (functional.avg_pool2d(torch.from_numpy(masks)[None].float(), 4) > 0.5).float()
    maps, halved = trunk(frame), trunk(halve(frame))
    deep, small = (pool(trunk.head_features(level[32]), covered) for level in (maps, halved))
    return torch.cat([at_two_scales(deep, small, covered), pool(maps[16], covered)], dim=2)[0]


def train_classes(
    examples: Examples, nouns: Sequence[str], published: Tensor, config: ClassesConfig
) -> tuple[Tensor, Tensor]:
    """Weight [K,1392] and bias [K] of the nouns, beside the `published` classifier's logits [R,1000]."""
    torch.manual_seed(config.seed)
    place = {noun: index for index, noun in enumerate(nouns)}
    labels = torch.tensor([place.get(noun or "", -1) for noun in examples.nouns])
    mean, deviation = examples.features.mean(0), examples.features.std(0) + 1e-3
    features = (examples.features - mean) / deviation
    others = published.logsumexp(1, keepdim=True)
    counts = Counter(labels.tolist())
    chance = torch.tensor([counts[label] ** -0.5 * (config.others if label < 0 else 1) for label in labels.tolist()])
    rows = nn.Linear(features.shape[1], len(nouns))
    nn.init.zeros_(rows.weight)
    nn.init.constant_(rows.bias, -2.0)  # rarer than all of ImageNet until something speaks for them
    optimiser = torch.optim.AdamW(rows.parameters(), config.learning_rate, weight_decay=config.weight_decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, config.steps)
    for _ in tqdm(range(config.steps), desc="classes", unit="step"):
        batch = torch.multinomial(chance, config.batch, replacement=True)
        logits = torch.cat([rows(functional.dropout(features[batch], config.dropout)), others[batch]], dim=1)
        loss = functional.cross_entropy(logits, labels[batch] % (len(nouns) + 1))  # -1: any class of ImageNet's
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    weight = rows.weight.detach() / deviation
    return weight, rows.bias.detach() - weight @ mean


def frequent_nouns(examples: Examples, photographs: int) -> list[str]:
    """Those that so many photographs show."""
    shows = defaultdict(set)
    for noun, photograph in zip(examples.nouns, examples.photographs, strict=True):
        shows[noun].add(photograph)
    return sorted(noun for noun, found in shows.items() if noun and len(found) >= photographs)


def write_classes(work: Path, config: ClassesConfig) -> None:
    """Look at the photographs, train, and write `work/classes.pt`."""
    _, class_weight, class_bias = load_trunk(source_folder(work, TRUNK))
    examples = photographed_examples(work, config)
    nouns = frequent_nouns(examples, config.photographs)
    published = examples.features[:, : class_weight.shape[1]] @ class_weight.T + class_bias
    weight, bias = train_classes(examples, nouns, published, config)
    torch.save({"nouns": nouns, "weight": weight, "bias": bias}, work / "classes.pt")


def load_classes(work: Path, text: TextEncoder) -> Classifier | None:
    """What `write_classes` wrote; None before."""
    if not (work / "classes.pt").exists():
        return None
    state = torch.load(work / "classes.pt", map_location="cpu", weights_only=True)
    return Classifier(state["weight"], state["bias"], torch.from_numpy(text(state["nouns"])))
