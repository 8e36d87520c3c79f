"""HTTP/1.1 for callers that cannot be trusted to go on: uvicorn's protocol, which by itself waits for ever."""

import asyncio

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

_HEAD_SECONDS = 10.0  # from the connection, or a request's first byte, to the end of its head
_LINGER_SECONDS = 10.0  # for the rest of a body that was answered before its end, so that the answer is still read
_HEAD_BYTES = 65_536


class BoundedProtocol(HttpToolsProtocol):
    """Closes a connection whose head comes too slowly or is too long, or whose body never ends after its answer.

    How long a body may take is the application's to say, since that is told in an answer.
    """

    _timer: asyncio.TimerHandle | None = None
    _in_head = True
    _head_bytes = 0
    _whole = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn does
        """Begin to wait for a request."""
        super().connection_made(transport)
        self._close_in(_HEAD_SECONDS)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting."""
        self._close_in(None)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read on, unless the head is too long by now."""
        super().data_received(data)
        if self._in_head and not self.transport.is_closing():
            self._head_bytes += len(data)
            if self._head_bytes > _HEAD_BYTES:
                self.send_400_response("The request's head is too long.")

    def on_message_begin(self) -> None:
        """A request's first byte."""
        super().on_message_begin()
        self._in_head, self._head_bytes, self._whole = True, 0, False
        self._close_in(_HEAD_SECONDS)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header; what comes after the body in their form is of no use and has no end."""
        if self._in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The head is there."""
        self._in_head = False
        self._close_in(None)
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """The body is there."""
        self._whole = True
        self._close_in(None)
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Do not read for ever what nobody wants any more."""
        super().on_response_complete()
        if not self._whole:
            self._close_in(_LINGER_SECONDS)

    def _close_in(self, seconds: float | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if seconds is None else self.loop.call_later(seconds, self.transport.close)
