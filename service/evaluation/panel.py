"""What runs a repository's graphs for a comparison of recognisers; evaluation itself is a client and runs none."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from service.client.masks import BoolArray
from service.client.options import SegmentOptions
from service.settings import Settings

OWN = "ovsam"
KINDS = (OWN, "image-crop", "feature-crop")


class Panel(Protocol):
    """Recognisers over the graphs of one model repository."""

    @property
    def revision(self) -> str:
        """The model revision."""
        ...

    def view(self, content: bytes) -> Any:
        """Encode a picture, given as a file's bytes."""
        ...

    def recognise(self, kind: str, view: Any, mask: BoolArray) -> tuple[tuple[str, ...], float]:
        """The best names of what lies under a mask [H, W] that is not empty, and the seconds they took."""
        ...

    def image_flops(self) -> int:
        """FLOPs of encoding a picture."""
        ...

    def prompt_flops(self, kind: str) -> int:
        """FLOPs of recognising one mask."""
        ...


class Opener(Protocol):
    """Opens panels; evaluation itself is a client and runs no graphs."""

    def kinds(self, repository: Path) -> Collection[str]:
        """The recognisers that a repository's graphs allow."""
        ...

    def open(self, repository: Path, kinds: Collection[str], options: SegmentOptions) -> Panel:
        """Recognisers that choose among the names or the vocabulary of `options`."""
        ...


Baselines: TypeAlias = Callable[[Settings], Opener]
"""Opens recognisers as the settings say."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Which recognisers to hold against each other, and the model repository whose graphs they run."""

    opener: Opener
    repository: Path
    kinds: Sequence[str]
