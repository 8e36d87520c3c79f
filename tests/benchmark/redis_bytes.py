"""What one picture takes in Redis: its parts in bytes, and by how much a real Redis grows.

The arrays have the shapes of the encoder's outputs and random content, which does not compress: float features take
this much whatever they hold, quantised codes at most this much.
`python -m tests.benchmark.redis_bytes --repository DIR [--pictures 50]`
"""

import argparse
import asyncio
import math
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from redis.asyncio import Redis

from service.adapters.codec import encode_part
from service.adapters.manifest import Repository, read_repository
from service.adapters.redis_cache import RedisCache, RedisLimits
from service.core.bundles import split_bundle
from service.core.types import Array, Letterbox, Size, Tensors
from tests.fakes import RecordingObserver
from tests.redis_server import redis_server

_MASKS = 64  # of one picture, as the segmenter keeps them


def random_parts(repository: Repository, generator: np.random.Generator) -> dict[str, Tensors]:
    """The parts of one picture that fills the model's frame."""
    bundle: dict[str, Array] = {}
    for name, tensor in repository.graphs["image_encoder"].outputs.items():
        shape, kind = (1, *tensor.shape[1:]), np.dtype(tensor.type)
        bundle[name] = np.frombuffer(generator.bytes(math.prod(shape) * kind.itemsize), kind).reshape(shape)
    side = repository.spec.input_size
    return split_bundle(bundle, Letterbox(Size(side, side), Size(side, side)), spec=repository.spec)


def by_kind(parts: Mapping[str, Tensors]) -> dict[str, list[int]]:
    """Encoded bytes of the parts, the tiles of a windowed tensor together."""
    sizes: dict[str, list[int]] = {}
    for name, tensors in parts.items():
        sizes.setdefault(name.split("/")[0], []).append(len(encode_part(tensors)))
    return sizes


def kept_masks(repository: Repository, generator: np.random.Generator) -> dict[str, Tensors]:
    """As many masks as are kept of one picture for refinement."""
    side = repository.spec.low_res_size
    return {
        f"{slot:02x}": {
            "logits": generator.standard_normal((side, side)).astype(np.float16),
            "nonce": np.array([slot]),
        }
        for slot in range(_MASKS)
    }


async def growth(repository: Repository, *, pictures: int, masks: bool) -> tuple[str, float]:
    """Redis' version, and the bytes of `used_memory` that one of so many pictures takes, with its masks or without."""
    generator = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder, redis_server(Path(folder)) as server:
        async with Redis.from_url(server.url) as client:
            cache = RedisCache(client, limits=RedisLimits(timeout=60.0), observer=RecordingObserver())
            before = await client.info()
            for number in range(pictures):
                await cache.put(f"{number:064x}", random_parts(repository, generator))
                if masks:
                    await cache.put(f"{number:064x}#masks", kept_masks(repository, generator))
            after = await client.info()
    assert after["db0"]["keys"] == pictures * (1 + masks)
    return str(after["redis_version"]), (after["used_memory"] - before["used_memory"]) / pictures


def main() -> None:
    """Print the bytes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repository", type=Path, default=Path("model_repository"))
    parser.add_argument("--pictures", type=int, default=50)
    options = parser.parse_args()
    repository = read_repository(options.repository)
    for kind, sizes in by_kind(random_parts(repository, np.random.default_rng(0))).items():
        print(f"{kind}: {sum(sizes):,} bytes in {len(sizes)} parts")
    for masks, words in ((False, ""), (True, f" with {_MASKS} kept masks")):
        version, grown = asyncio.run(growth(repository, pictures=options.pictures, masks=masks))
        print(f"a picture{words} in Redis {version}: {grown:,.0f} bytes")


if __name__ == "__main__":
    main()
