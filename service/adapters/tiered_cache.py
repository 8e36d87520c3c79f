"""Memory in front of a shared cache: what the shared tier gives is kept near."""

from collections.abc import Mapping, Sequence

from service.core.ports import EmbeddingCache
from service.core.types import Source, Tensors


class TieredCache:
    """Reads the near tier first; writes and deletes both."""

    def __init__(self, near: EmbeddingCache, far: EmbeddingCache) -> None:
        self._near = near
        self._far = far

    async def get(self, key: str, parts: Sequence[str]) -> dict[str, tuple[Tensors, Source]]:
        """The parts of either tier."""
        found = await self._near.get(key, parts)
        missing = [part for part in parts if part not in found]
        if missing:
            fetched = await self._far.get(key, missing)
            await self._near.put(key, {part: tensors for part, (tensors, _) in fetched.items()})
            found |= fetched
        return found

    async def put(self, key: str, parts: Mapping[str, Tensors]) -> None:
        """Keep parts in both tiers."""
        await self._near.put(key, parts)
        await self._far.put(key, parts)

    async def delete(self, key: str) -> None:
        """Forget a key in both tiers."""
        await self._near.delete(key)
        await self._far.delete(key)

    async def close(self) -> None:
        """Close both tiers."""
        await self._near.close()
        await self._far.close()
