"""The image encoder on servers of its own: few large calls there, many small ones elsewhere, each scaled by itself."""

import asyncio
from typing import Final

from service.core.ports import ModelBackend
from service.core.spec import MODEL_NAMES, ModelName, ModelSpec
from service.core.types import Array, Tensors

ENCODER: Final[ModelName] = "image_encoder"
OTHERS = tuple(name for name in MODEL_NAMES if name != ENCODER)


class SplitBackend:
    """Sends calls of the image encoder to one engine and all others to another; both are of one repository.

    Each engine holds its servers to that repository's manifest, so no embedding meets a decoder of another revision.
    """

    def __init__(self, *, encoder: ModelBackend, others: ModelBackend) -> None:
        self._encoder = encoder
        self._others = others
        self._encoder_answered = False

    @property
    def spec(self) -> ModelSpec:
        """The repository's manifest."""
        return self._others.spec

    async def run(self, model: ModelName, inputs: Tensors, *, timeout: float | None = None) -> dict[str, Array]:
        """Run one call where the model is served."""
        engine = self._encoder if model == ENCODER else self._others
        return await engine.run(model, inputs, timeout=timeout)

    async def probe(self) -> None:
        """Probe the encoder until it has answered once, and all other models each time.

        A service that started well stays ready without its encoder: pictures in the cache are still segmented, and
        all gateways lose it together, so that turning unready would take those clicks away as well.
        """
        await self._others.probe()
        if not self._encoder_answered:
            await self._encoder.probe()
            self._encoder_answered = True

    async def close(self) -> None:
        """Close both engines."""
        await asyncio.gather(self._encoder.close(), self._others.close())
