"""Progress of a long run on standard error: tqdm's bar where it is installed, else a line now and then."""

import importlib
import sys
import time
from typing import Any, Self

_SECONDS = 2.0  # between two lines


class Progress:
    """Counts what is done under a `title`; without one it is silent."""

    def __init__(self, title: str | None, *, total: int | None) -> None:
        self._title = title
        self._total = total
        self._count = 0
        self._told = time.monotonic()
        self._bar = _bar(title, total=total) if title is not None else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()
        elif self._title is not None:
            self._tell()

    def advance(self) -> None:
        """One more is done."""
        self._count += 1
        if self._bar is not None:
            self._bar.update()
        elif self._title is not None and time.monotonic() - self._told >= _SECONDS:
            self._tell()

    def _tell(self) -> None:
        self._told = time.monotonic()
        of = "" if self._total is None else f" of {self._total}"
        sys.stderr.write(f"{self._title}: {self._count}{of}\n")


def _bar(title: str, *, total: int | None) -> Any:
    try:
        tqdm = importlib.import_module("tqdm").tqdm
    except ImportError:
        return None
    return tqdm(total=total, desc=title, unit="image", dynamic_ncols=True)
