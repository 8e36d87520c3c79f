"""The embedding cache in this process: least recently used parts go first, bounded by bytes."""

from collections.abc import Mapping, Sequence

from service.core.lru import ByteLru
from service.core.types import Source, Tensors

_OVERHEAD = 256  # bytes that Python and NumPy need around a small array


class MemoryCache:
    """Parts of embedding bundles by (key, part name)."""

    def __init__(self, max_bytes: int) -> None:
        self._parts: ByteLru[tuple[str, str], Tensors] = ByteLru(max_bytes)

    async def get(self, key: str, parts: Sequence[str]) -> dict[str, tuple[Tensors, Source]]:
        """The parts that are there."""
        found = ((part, self._parts.get((key, part))) for part in parts)
        return {part: (tensors, "memory") for part, tensors in found if tensors is not None}

    async def put(self, key: str, parts: Mapping[str, Tensors]) -> None:
        """Keep parts."""
        for part, tensors in parts.items():
            size = sum(array.nbytes + _OVERHEAD for array in tensors.values())
            self._parts.put((key, part), tensors, size=size)

    async def delete(self, key: str) -> None:
        """Forget every part of a key."""
        for entry in self._parts:
            if entry[0] == key:
                self._parts.remove(entry)

    async def close(self) -> None:
        """Nothing is held outside this process."""

    @property
    def bytes(self) -> int:
        """How much is kept now."""
        return self._parts.bytes
