"""The network at sizes a test can afford, with weights that leave no part of it idle."""

import torch

from export.network.ovsam import OpenVocabularySam
from export.variants import VARIANTS

TINY = VARIANTS["tiny"]


def tiny_network(seed: int = 0) -> OpenVocabularySam:
    """Random weights, scaled to keep activations near one; norms and running variances near the identity."""
    generator = torch.Generator().manual_seed(seed)
    network = OpenVocabularySam(TINY).eval().requires_grad_(requires_grad=False)
    for name, tensor in network.state_dict().items():
        noise = torch.randn(tensor.shape, generator=generator)
        if not tensor.is_floating_point():
            continue
        if name.endswith("running_var"):
            tensor.copy_(1 + 0.1 * noise.abs())
        elif tensor.dim() == 1:
            tensor.copy_(0.2 * noise + (1.0 if name.endswith("weight") else 0.0))
        elif "embed" in name or "token" in name or name.endswith("matrix"):
            tensor.copy_(noise)
        else:
            tensor.copy_(noise * (2 / tensor[0].numel()) ** 0.5)
    return network
