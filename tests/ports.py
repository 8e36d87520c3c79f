"""TCP ports for servers that are told their port before they start.

A port that the kernel gives out for port 0 is one of those that it gives to outgoing connections as well: between our
look and the server's start any of them may take it. Here all ports lie below those, and each call takes a block that
no other call of this process has had.
"""

import itertools
import random
import socket

_BLOCK = 40  # the drill takes the most, 31
_FIRST_PORTS = range(10_100, 20_000, _BLOCK)  # a member of a Redis cluster also takes the port 10,000 above its own
_blocks = itertools.cycle(random.sample(_FIRST_PORTS, len(_FIRST_PORTS)))  # shuffled: two runs side by side rarely meet


def free_ports(count: int) -> int:
    """The first of `count` ports in a row, at most 40, that nobody listens on."""
    return next(first for first in _blocks if all(map(_is_free, range(first, first + count))))


def free_port() -> int:
    """A port that nobody listens on."""
    return free_ports(1)


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
