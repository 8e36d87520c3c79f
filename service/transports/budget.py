"""A bound on the memory that bodies take: many callers may each send the most that is allowed, at the same time."""

from service.core.errors import Overloaded

_SMALL = 65_536  # bytes; a click gets in however many uploads are under way


class ByteBudget:
    """Counts the bytes of all bodies in hand, of which there may be `limit`."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held = 0

    def take(self, count: int, *, held: int) -> None:
        """Count `count` more bytes of a body that had `held`; raises Overloaded when there are too many in all."""
        self._held += count
        if self._held > self._limit and held + count > _SMALL:
            raise Overloaded("too many uploads are under way; try again", retry_after=1.0)

    def give(self, count: int) -> None:
        """A body of `count` bytes is no longer in hand."""
        self._held -= count
