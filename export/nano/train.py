"""Train the mask network: one configuration, one loop. Stops, resumes and repeats by step number."""

import copy
import math
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader
from tqdm import tqdm

from export.nano.ingredients import TRUNK, source_folder
from export.nano.network import Features, Neck, PromptDecoder, Prompts
from export.nano.prompts import Batch, BatchSizes, PromptStream, correct
from export.nano.trunk import Trunk, load_trunk

IMAGE_MEAN, IMAGE_STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


@dataclass(frozen=True, slots=True)
class TrainingConfig:
    """Everything that decides the result, besides the scenes."""

    steps: int = 4000
    scenes: int = 10000
    seed: int = 1
    learning_rate: float = 1.2e-3
    final_learning_rate: float = 2e-5
    warm_up: int = 100
    weight_decay: float = 0.02
    clip: float = 1.0
    averaging: float = 0.996
    later_rounds: float = 0.5
    """Share of steps that learn from corrective clicks: earlier rounds run without gradient, the last one is learnt."""
    large_share: float = 0.4
    """The last steps see the full input size; with less, large objects come back as their parts."""
    checkpoint_every: int = 100
    threads: int = 2


class MaskNetwork(nn.Module):
    """The trained parts together; the frozen trunk is passed in, so that checkpoints stay small."""

    def __init__(self) -> None:
        """Random weights."""
        super().__init__()
        self.neck, self.decoder = Neck(), PromptDecoder()


def normalise(image: Tensor, valid_size: Tensor) -> Tensor:
    """uint8 BxSxSx3 -> float Bx3xSxS in ImageNet's statistics, zero outside the valid size (height, width)."""
    mean, std = (torch.tensor(values)[:, None, None] for values in (IMAGE_MEAN, IMAGE_STD))
    x = image.permute(0, 3, 1, 2).float() * (1 / std) - mean / std  # ONNX Runtime is slow in channels last
    rows = torch.arange(image.shape[1]) < valid_size[:, :1]
    columns = torch.arange(image.shape[2]) < valid_size[:, 1:]
    return torch.where((rows[:, :, None] & columns[:, None, :])[:, None], x, 0.0)


def encode(trunk: Trunk, neck: Neck, image: Tensor) -> tuple[Features, dict[int, Tensor], dict[int, Tensor]]:
    """A normalised picture Bx3xSxS -> the mask group, and the trunk's maps of it and of it at half its size."""
    maps, halved = trunk(image), trunk(halve(image))
    return neck(maps, halved), maps, halved


def halve(image: Tensor) -> Tensor:
    """Mean of every 2x2 pixels: Bx3xSxS -> Bx3xS/2xS/2."""
    # as a convolution: from opset 19 on, ONNX Runtime's average pool took 4 of the encoder's 104 ms
    return functional.conv2d(image, torch.full((3, 1, 2, 2), 0.25), stride=2, groups=3)


def train(work: Path, config: TrainingConfig) -> None:
    """Run or continue the training in `work/masks.pt`."""
    torch.manual_seed(config.seed)
    torch.set_num_threads(config.threads)
    trunk = load_trunk(source_folder(work, TRUNK))[0].to(memory_format=torch.channels_last)
    network: MaskNetwork = MaskNetwork().to(memory_format=torch.channels_last)
    average = copy.deepcopy(network).requires_grad_(requires_grad=False)
    optimiser = torch.optim.AdamW(network.parameters(), config.learning_rate, weight_decay=config.weight_decay)
    checkpoint = work / "masks.pt"
    start = 0
    if checkpoint.exists():
        state = torch.load(checkpoint, map_location="cpu", weights_only=True)
        network.load_state_dict(state["network"])
        average.load_state_dict(state["average"])
        optimiser.load_state_dict(state["optimiser"])
        start = state["step"]
    sizes = BatchSizes(large_from=int(config.steps * (1 - config.large_share)))
    stream = PromptStream(work, config.scenes, seed=config.seed, first=start, sizes=sizes)
    spawn = get_context("spawn")  # a fork would inherit OpenCV's locked thread pool
    loader = DataLoader(stream, batch_size=None, num_workers=1, prefetch_factor=8, multiprocessing_context=spawn)
    batches = iter(loader)
    mean_iou = 0.0
    with tqdm(
        range(start, config.steps), desc="masks", unit="step", initial=start, total=config.steps, mininterval=5
    ) as progress:
        for step in progress:
            for group in optimiser.param_groups:
                group["lr"] = learning_rate(config, step)
            loss, iou = training_loss(network, trunk, next(batches), corrections=_corrections(config, step))
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), config.clip)
            optimiser.step()
            _follow(average, network, min(config.averaging, (step + 1) / (step + 10)))
            mean_iou += (iou - mean_iou) * max(0.02, 1 / (step - start + 1))
            progress.set_postfix(loss=f"{loss.item():.3f}", iou=f"{mean_iou:.3f}", refresh=False)
            if (step + 1) % config.checkpoint_every == 0 or step + 1 == config.steps:
                _save(
                    checkpoint,
                    {"network": network, "average": average, "optimiser": optimiser},
                    step=step + 1,
                    config=config,
                )


def learning_rate(config: TrainingConfig, step: int) -> float:
    """Linear warm-up, then a cosine to the final rate."""
    cosine = 0.5 + 0.5 * math.cos(math.pi * step / config.steps)
    rate = config.final_learning_rate + (config.learning_rate - config.final_learning_rate) * cosine
    return rate * min(1.0, (step + 1) / config.warm_up)


def _corrections(config: TrainingConfig, step: int) -> int:
    """0, 1, 2 or 3 corrective clicks before the learnt round; a function of the step only."""
    draw = torch.rand(2, generator=torch.Generator().manual_seed(config.seed * 1_000_003 + step))
    return int(1 + 3 * draw[1]) if draw[0] < config.later_rounds else 0


def training_loss(network: MaskNetwork, trunk: Trunk, batch: Batch, *, corrections: int) -> tuple[Tensor, float]:
    """Loss of the last round and its mean IoU at low resolution."""
    image = normalise(batch.image, batch.valid_size).contiguous(memory_format=torch.channels_last)
    features, *_ = encode(trunk, network.neck, image)
    prompts = Prompts(
        batch.coords, batch.labels, torch.zeros(*batch.labels.shape[:2], 1, 1), torch.zeros(batch.labels.shape[:2])
    )
    frozen = Features(*(level.detach() for level in features))
    for _ in range(corrections):
        with torch.no_grad():
            logits = network.decoder(frozen, prompts)
        correct(logits.numpy(), batch.target.numpy(), batch.coords.numpy(), batch.labels.numpy())
        prompts = Prompts(batch.coords, batch.labels, logits, torch.ones(logits.shape[:2]))
    logits = network.decoder(features, prompts)
    return mask_loss(logits, batch.target).mean(), _mean_iou(logits.detach(), batch.target)


def mask_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Dice + 0.3 normalised focal + 0.3 class-balanced cross-entropy, each per mask: BxNxLxL -> BxN.

    SAM's 20 focal + dice collapses to empty masks at this size of model; the normalised forms do not.
    """
    probability = logits.sigmoid()
    area, total = target.sum((2, 3)), probability.sum((2, 3))
    dice = 1 - (2 * (probability * target).sum((2, 3)) + 1) / (area + total + 1)
    entropy = functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
    focus = (probability - target).abs().square()
    focal = (entropy * focus).sum((2, 3)) / focus.detach().sum((2, 3)).clamp(min=1e-3)
    outside = (1 - target).sum((2, 3))
    weight = target / area.clamp(min=1)[..., None, None] + (1 - target) / outside.clamp(min=1)[..., None, None]
    return dice + 0.3 * focal + 0.15 * (entropy * weight).sum((2, 3))


def _mean_iou(logits: Tensor, target: Tensor) -> float:
    found, true = logits > 0, target > 0.5
    union = (found | true).sum((2, 3)).clamp(min=1)
    return float(((found & true).sum((2, 3)) / union).mean())


@torch.no_grad()
def _follow(average: nn.Module, network: nn.Module, decay: float) -> None:
    for slow, fast in zip(average.state_dict().values(), network.state_dict().values(), strict=True):
        slow.lerp_(fast, 1 - decay)


def _save(
    path: Path, parts: dict[str, nn.Module | torch.optim.Optimizer], *, step: int, config: TrainingConfig
) -> None:
    """Through a second file, so that a stop in the middle loses nothing."""
    record = {"step": step, "planned_steps": config.steps, "seed": config.seed, "scenes": config.scenes}
    state = {name: part.state_dict() for name, part in parts.items()} | record
    torch.save(state, path.with_suffix(".partial"))
    path.with_suffix(".partial").replace(path)


def training_record(checkpoint: Path) -> dict[str, int]:
    """What the manifest says about the run behind a checkpoint."""
    state = torch.load(checkpoint, map_location="cpu", weights_only=True)
    return {
        "steps": state["step"],
        "planned_steps": state["planned_steps"],
        "seed": state["seed"],
        "scenes": state["scenes"],
    }
