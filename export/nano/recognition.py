"""The trained region head: pooled trunk features of seen drawings -> the text space, by their names.

The trunk stays frozen, so its features are computed once and the head itself trains in minutes.
"""

from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

from export.nano.cutouts import Cutout, load_cutouts
from export.nano.graphs import pool
from export.nano.ingredients import CLIPART, OPENMOJI, TRUNK, source_folder
from export.nano.scenes import Composer, composer
from export.nano.text import TextEncoder
from export.nano.textures import fractal_noise, sample_texture
from export.nano.train import normalise
from export.nano.trunk import CHANNELS, HEAD_CHANNELS, load_trunk

FRAME = 384
FEATURES = HEAD_CHANNELS + CHANNELS[16]
PHOTOGRAPH_PRIOR = 4.0
"""Logits: the few training photographs make the gate sure too early."""
CHUNK = 400
"""Objects whose features lie in one file."""


@dataclass(frozen=True, slots=True)
class RecognitionConfig:
    """How often each drawing is seen, and how the head learns from it."""

    views: int = 5
    epochs: int = 40
    batch: int = 256
    learning_rate: float = 1e-3
    weight_decay: float = 0.05
    scale: float = 20.0
    photograph_crops: int = 400
    seed: int = 1


class RegionHead(nn.Module):
    """Pooled features BxNxFEATURES -> BxNxD in the text space (not yet of unit length)."""

    def __init__(self, width: int = 512, text: int = 384) -> None:
        """One hidden layer."""
        super().__init__()
        self.layers = nn.Sequential(
            nn.LayerNorm(FEATURES),
            nn.Dropout(0.2),
            nn.Linear(FEATURES, width),
            nn.GELU(),
            nn.Dropout(0.3),
            nn.Linear(width, text),
        )

    def forward(self, pooled: Tensor) -> Tensor:
        """The same leading axes."""
        embedding: Tensor = self.layers(pooled)
        return embedding


class DrawingGate(nn.Module):
    """Pooled features BxNxFEATURES -> BxNx1: how much a region looks drawn rather than photographed, 0-1.

    The head knows drawings and the ImageNet classifier photographs; each misleads on the other's ground.
    """

    def __init__(self) -> None:
        """Linear on normalised features."""
        super().__init__()
        self.norm, self.linear = nn.LayerNorm(FEATURES, elementwise_affine=False), nn.Linear(FEATURES, 1)

    def logit(self, pooled: Tensor) -> Tensor:
        """The same leading axes, one channel."""
        logit: Tensor = self.linear(self.norm(pooled))
        return logit

    def forward(self, pooled: Tensor) -> Tensor:
        """Share of the head: a drawing has to look the part beyond doubt."""
        return (self.logit(pooled) - PHOTOGRAPH_PRIOR).sigmoid()


def named_cutouts(work: Path) -> list[tuple[int, Cutout]]:
    """Drawings with a trustworthy name (emoji captions), with their places in the index; held-out concepts excluded."""
    untrusted = {CLIPART.folder, OPENMOJI.folder}
    return [(i, c) for i, c in enumerate(load_cutouts(work)) if c.source not in untrusted and not c.held_out]


def compute_features(work: Path, config: RecognitionConfig, *, processes: int) -> None:
    """Features of every view of every named drawing, in files of CHUNK objects; finished files are kept."""
    folder = work / "features"
    folder.mkdir(exist_ok=True)
    total = len(named_cutouts(work)) * config.views
    chunks = range(-(-total // CHUNK))
    with ProcessPoolExecutor(processes, get_context("spawn"), _open_worker, (work, config.seed)) as executor:
        for _ in tqdm(executor.map(_features_of_chunk, chunks), desc="features", total=len(chunks), unit="file"):
            pass


_worker: "_FeatureWorker"


def _open_worker(work: Path, seed: int) -> None:
    global _worker  # noqa: PLW0603, a pool's initializer has no other way to hand over what is dear to build
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    _worker = _FeatureWorker(work, seed)


def _features_of_chunk(chunk: int) -> None:
    _worker.run(chunk)


class _FeatureWorker:
    """Composes views, runs the trunk, pools under the true masks."""

    def __init__(self, work: Path, seed: int) -> None:
        self.work, self.seed = work, seed
        self.trunk = load_trunk(source_folder(work, TRUNK))[0].to(memory_format=torch.channels_last)
        self.named = named_cutouts(work)
        self.composer: Composer = composer(work, "train")

    def run(self, chunk: int) -> None:
        path = self.work / "features" / f"{chunk:04d}.npz"
        if path.exists():
            return
        rng = np.random.default_rng([self.seed, chunk])
        picks = rng.integers(len(self.named), size=CHUNK)
        rows, labels = [], []
        place = 0
        while place < CHUNK:
            grid = int(rng.choice((1, 2, 2, 2)))
            wanted = picks[place : place + grid * grid]
            image, masks = self.composer.grid(rng, [self.named[k][1] for k in wanted], FRAME, columns=grid)
            rows.append(self._pooled(image, masks))
            labels.extend(self.named[k][0] for k in wanted)
            place += len(wanted)
        features = np.concatenate(rows).astype(np.float16)
        np.savez(path.with_suffix(".partial.npz"), features=features, cutouts=np.array(labels))
        path.with_suffix(".partial.npz").rename(path)

    def photographed(self, crops: int) -> Tensor:
        """Features of four blobs in each of many crops of the training photographs: [4 x crops, FEATURES]."""
        rng = np.random.default_rng([self.seed, 1_000_000])
        rows = []
        for _ in tqdm(range(crops), desc="photographs", unit="crop"):
            image = sample_texture(rng, self.composer.photographs, FRAME, photograph=1.0)
            fields = [fractal_noise(rng, FRAME, roughness=0.4) for _ in range(4)]
            masks = np.stack([field > np.quantile(field, rng.uniform(0.6, 0.95)) for field in fields])
            rows.append(self._pooled(image, masks))
        return torch.from_numpy(np.concatenate(rows))

    @torch.no_grad()
    def _pooled(self, image: NDArray[np.uint8], masks: NDArray[np.bool_]) -> NDArray[np.float32]:
        size = torch.tensor([image.shape[:2]], dtype=torch.int32)
        maps = self.trunk(normalise(torch.from_numpy(image)[None], size).contiguous(memory_format=torch.channels_last))
        covered = functional.avg_pool2d(torch.from_numpy(masks[None]).float(), 4)
        levels = (self.trunk.head_features(maps[32]), maps[16])
        return torch.cat([pool(level, (covered > 0.5).float()) for level in levels], dim=2)[0].numpy()


def train_head(work: Path, text: TextEncoder, config: RecognitionConfig) -> None:
    """Fit the head on the stored features and write `work/head.pt`."""
    torch.manual_seed(config.seed)
    cutouts = load_cutouts(work)
    files = [np.load(path) for path in sorted((work / "features").glob("[0-9]*.npz")) if "partial" not in path.name]
    features = torch.from_numpy(np.concatenate([file["features"] for file in files]))
    owners = [cutouts[index] for index in np.concatenate([file["cutouts"] for file in files])]
    names = sorted({cutout.name for cutout in owners})
    texts = torch.from_numpy(text(names))
    place = {name: index for index, name in enumerate(names)}
    labels = torch.tensor([place[cutout.name] for cutout in owners])
    head = RegionHead()
    optimiser = torch.optim.AdamW(head.parameters(), config.learning_rate, weight_decay=config.weight_decay)
    steps = config.epochs * (len(labels) // config.batch)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for _ in tqdm(range(steps), desc="head", unit="step"):
        rows = torch.randint(len(labels), (config.batch,))
        embedding = functional.normalize(head(features[rows].float()), dim=1)
        loss = functional.cross_entropy(config.scale * embedding @ texts.T, labels[rows])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    torch.save({"head": head.state_dict(), "objects": len(labels), "names": len(names)}, work / "head.pt")


def train_gate(work: Path, config: RecognitionConfig) -> None:
    """Tell stored drawings from blobs cut out of the training photographs; writes `work/gate.pt`."""
    torch.manual_seed(config.seed)
    files = [np.load(path) for path in sorted((work / "features").glob("[0-9]*.npz")) if "partial" not in path.name]
    drawn = torch.from_numpy(np.concatenate([file["features"] for file in files])).float()
    worker = _FeatureWorker(work, config.seed)
    photographed = worker.photographed(config.photograph_crops)
    gate = DrawingGate()
    optimiser = torch.optim.AdamW(gate.parameters(), 1e-3, weight_decay=0.1)
    for _ in tqdm(range(600), desc="gate", unit="step"):
        rows = [part[torch.randint(len(part), (128,))] for part in (drawn, photographed)]
        target = torch.cat([torch.ones(128), torch.zeros(128)])
        loss = functional.binary_cross_entropy_with_logits(gate.logit(torch.cat(rows))[:, 0], target)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    torch.save(gate.state_dict(), work / "gate.pt")


def load_head(work: Path) -> tuple[RegionHead, DrawingGate] | None:
    """The trained head and gate; None before they are trained (the repository then has ConSE alone)."""
    if not (work / "head.pt").exists() or not (work / "gate.pt").exists():
        return None
    head, gate = RegionHead(), DrawingGate()
    head.load_state_dict(torch.load(work / "head.pt", map_location="cpu", weights_only=True)["head"])
    gate.load_state_dict(torch.load(work / "gate.pt", map_location="cpu", weights_only=True))
    return head.eval(), gate.eval()
