"""A least-recently-used store bounded by bytes, the measure that memory really has."""

from collections import OrderedDict
from collections.abc import Hashable, Iterator
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class ByteLru(Generic[Key, Value]):
    """Keeps values up to `max_bytes`; a value larger than that is not kept at all."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._values: OrderedDict[Key, tuple[Value, int]] = OrderedDict()
        self.bytes = 0

    def __iter__(self) -> Iterator[Key]:
        return iter(tuple(self._values))

    def get(self, key: Key) -> Value | None:
        """The value, which is now the most recently used; None when it is not kept."""
        found = self._values.get(key)
        if found is None:
            return None
        self._values.move_to_end(key)
        return found[0]

    def put(self, key: Key, value: Value, *, size: int) -> None:
        """Keep a value of `size` bytes and drop the longest unused ones that do not fit beside it."""
        self.remove(key)
        if size > self._max_bytes:
            return
        self._values[key] = (value, size)
        self.bytes += size
        while self.bytes > self._max_bytes:
            _, (_, dropped) = self._values.popitem(last=False)
            self.bytes -= dropped

    def remove(self, key: Key) -> None:
        """Forget a key, if it is kept."""
        _, size = self._values.pop(key, (None, 0))
        self.bytes -= size
