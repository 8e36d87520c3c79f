"""Shared memory that carries the inputs of calls to a Triton on this host: the embedding is written once, not sent.

A server may read a slot until its call has ended *there*, which a client that cancelled or timed out cannot know. So
a call that uses a slot is never cancelled, and a slot whose call did not end with the server's own answer is never
used again (TRITON.md: early reuse corrupts tensors).
"""

import logging
import mmap
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from service.core.types import Tensors

_FOLDER = Path("/dev/shm")  # noqa: S108 - where POSIX shared memory lives on Linux
_ALIGNMENT = 64
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SlotLimits:
    """`count` slots of `size` bytes; smaller requests than `least` bytes go by message, which can be cancelled."""

    count: int = 8
    size: int = 8 * 2**20
    least: int = 2**18


@dataclass(frozen=True, slots=True)
class Slot:
    """Where each tensor of one request lies: name -> (offset in the region, bytes)."""

    number: int
    region: str
    places: Mapping[str, tuple[int, int]]


class SlotPool:
    """The slots of one region; lives as long as the server knows the region."""

    def __init__(self, limits: SlotLimits) -> None:
        self.name = f"ovsam_{os.getpid()}_{secrets.token_hex(4)}"
        self.limits = limits
        self._free = list(range(limits.count))
        self._retired = 0
        descriptor = os.open(_FOLDER / self.name, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
        try:
            os.ftruncate(descriptor, limits.count * limits.size)
            self._memory = mmap.mmap(descriptor, limits.count * limits.size)
        finally:
            os.close(descriptor)

    @property
    def free(self) -> int:
        """Slots that can be taken."""
        return len(self._free)

    @property
    def spent(self) -> bool:
        """Whether no slot can ever be used again."""
        return self._retired == self.limits.count

    def unlink(self) -> None:
        """Take the name away once the server has mapped it: then nothing is left when either of us is killed."""
        (_FOLDER / self.name).unlink(missing_ok=True)

    def take(self, inputs: Tensors) -> Slot | None:
        """Write a request's tensors into a free slot; None when it is too small, too large, or all are in use."""
        total = sum(_aligned(array.nbytes) for array in inputs.values())
        if not self._free or not self.limits.least <= total <= self.limits.size:
            return None
        number = self._free.pop()
        offset = number * self.limits.size
        places: dict[str, tuple[int, int]] = {}
        for name, array in inputs.items():
            np.ndarray(array.shape, array.dtype, buffer=self._memory, offset=offset)[...] = array
            places[name] = (offset, array.nbytes)
            offset += _aligned(array.nbytes)
        return Slot(number=number, region=self.name, places=places)

    def release(self, slot: Slot) -> None:
        """Give a slot back; only when the server has answered the call that used it."""
        self._free.append(slot.number)

    def retire(self, slot: Slot) -> None:
        """Never use a slot again: nobody knows whether the server still reads it."""
        self._retired += 1
        _log.warning("a slot of %s is lost, its call (in slot %d) did not end", self.name, slot.number)


def _aligned(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT
