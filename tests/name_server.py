"""A name server that changes its mind: it gives the next of its answers to each question, to be forgotten at once."""

import ipaddress
import socketserver
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_ADDRESS = b"\x00\x01"  # type A; whatever else is asked for, the name has none
_HEAD = 12  # bytes before the question
_AFTER_NAME = 4  # bytes of the question's type and class


class NameServer:
    """Says `answers` (IPv4) in turn, the last of them for ever, and remembers what it has said."""

    def __init__(self) -> None:
        self.answers: list[str] = []
        self.given: list[str] = []

    @contextmanager
    def serving(self, address: str, port: int) -> Iterator[None]:
        """Answer over UDP."""
        reply = self._reply

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                question, back = self.request
                back.sendto(reply(question), self.client_address)

        with socketserver.UDPServer((address, port), Handler) as server:
            thread = threading.Thread(target=server.serve_forever)
            thread.start()
            try:
                yield
            finally:
                server.shutdown()
                thread.join()

    def _reply(self, message: bytes) -> bytes:
        end = message.index(b"\0", _HEAD) + 1 + _AFTER_NAME
        question = message[_HEAD:end]
        records = b""
        if question[-_AFTER_NAME:-2] == _ADDRESS:
            self.given.append(self.answers.pop(0) if len(self.answers) > 1 else self.answers[0])
            address = ipaddress.IPv4Address(self.given[-1]).packed
            # the name is that of the question; type A, class IN, a life of 0 seconds
            records = struct.pack(">HHHIH", 0xC000 | _HEAD, 1, 1, 0, len(address)) + address
        return message[:2] + struct.pack(">HHHHH", 0x8180, 1, int(bool(records)), 0, 0) + question + records
