"""HTTP by hand, for what no well-behaved client would send."""

import asyncio
import socket
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import urlsplit

from tests.end_to_end.gateway import Gateway

_PIPELINED = 50  # requests sent before their answers are read


@dataclass(frozen=True)
class RawAnswer:
    """What came back before the server closed: the status (0 for nothing), all bytes, and after how many seconds."""

    status: int
    content: bytes
    seconds: float


def connect(gateway: Gateway) -> socket.socket:
    """A connection on which nothing has been sent."""
    parts = urlsplit(gateway.url)
    return socket.create_connection((parts.hostname or "", parts.port or 0), timeout=60)


def head(method: str, path: str, *headers: str) -> bytes:
    """The head of a request, without regard to what may stand in one."""
    return "\r\n".join([f"{method} {path} HTTP/1.1", "host: gateway", *headers, "", ""]).encode("latin-1")


def send(gateway: Gateway, parts: Iterable[bytes], *, pause: float = 0.0) -> RawAnswer:
    """Send the parts with a pause after each until the server answers or hangs up, then read what it says."""
    started = time.monotonic()
    with connect(gateway) as connection:
        connection.settimeout(pause or 0.001)
        content = b""
        for part in parts:
            try:
                connection.settimeout(60)
                connection.sendall(part)
                connection.settimeout(pause or 0.001)
                content = connection.recv(65536)
                break
            except TimeoutError:
                continue
            except ConnectionError:
                break
        content += drain(connection)
    status = int(content.split(b" ", 2)[1]) if content.startswith(b"HTTP/1.1 ") else 0
    return RawAnswer(status, content, time.monotonic() - started)


def drain(connection: socket.socket, *, seconds: float = 30.0) -> bytes:
    """Everything until the server closes the connection, which it has to within `seconds`."""
    connection.settimeout(seconds)
    content = b""
    try:
        while piece := connection.recv(65536):
            content += piece
    except ConnectionError:
        pass
    return content


async def flood(gateway: Gateway, request: bytes, *, count: int, connections: int = 20) -> Counter[int]:
    """Ask the same thing `count` times over, pipelined so that asking costs next to nothing; answers by status."""
    parts = urlsplit(gateway.url)
    statuses: Counter[int] = Counter()

    async def one() -> None:
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        for _ in range(count // connections // _PIPELINED):
            writer.write(request * _PIPELINED)
            for _ in range(_PIPELINED):
                top = (await reader.readuntil(b"\r\n\r\n")).lower()
                statuses[int(top.split(b" ", 2)[1])] += 1
                await reader.readexactly(int(top.split(b"content-length: ")[1].split(b"\r\n")[0]))
        writer.close()
        await writer.wait_closed()

    await asyncio.gather(*(one() for _ in range(connections)))
    return statuses
