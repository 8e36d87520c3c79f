"""Around every HTTP request: its id, its size limit, its caller's patience, and what it is counted as."""

import asyncio
from collections.abc import MutableMapping
from dataclasses import dataclass
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.core.errors import ImageTooLarge, Overloaded, RateLimited, SlowUpload, Unauthorized
from service.transports.auth import needs_key
from service.transports.budget import ByteBudget
from service.transports.problems import problem_response, unexpected_response
from service.transports.request_ids import request_id
from service.transports.services import RequestObserver, Services

_HEADERS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "content-security-policy": "frame-ancestors 'none'",  # beside the page's own, which may not say this
}


@dataclass(frozen=True, slots=True)
class BodyLimits:
    """At most `bytes` in one body and `all_bytes` in all that are in hand; `seconds` for a body to come."""

    bytes: int
    all_bytes: int
    seconds: float


class RequestMiddleware:
    """Around a request: its id (the client's own when harmless), its time and count, its caller, its body's limits."""

    def __init__(self, app: ASGIApp, *, observer: RequestObserver, limits: BodyLimits) -> None:
        self._app = app
        self._observer = observer
        self._limits = limits
        self._budget = ByteBudget(limits.all_bytes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        given = headers.get("x-request-id", "")
        state: MutableMapping[str, Any] = scope.setdefault("state", {})
        state["request_id"] = request_id(given)
        state["code"] = "ok"
        answered = False
        status = ""

        async def answer(message: Message) -> None:
            nonlocal answered, status
            if message["type"] == "http.response.start":
                answered, status = True, str(message["status"])
                out = MutableHeaders(scope=message)
                out["x-request-id"] = state["request_id"]
                out.update(_HEADERS)
                if message["status"] >= 400 and state["code"] == "ok":
                    state["code"] = str(message["status"])
            await send(message)

        with self._observer.request(state["request_id"], headers) as record:
            try:
                await self._guarded(scope, receive, answer, length=headers.get("content-length"))
            except Exception as error:  # noqa: BLE001 - the transport's edge: whatever it is, the caller gets an answer
                response = unexpected_response(state, error)
                if not answered:
                    await response(scope, receive, answer)
            finally:
                record.method, record.status, record.code = scope["method"], status, state["code"]
                record.route = getattr(scope.get("route"), "path", "other")
                record.tenant = getattr(state.get("caller"), "tenant", record.tenant)

    async def _guarded(self, scope: Scope, receive: Receive, send: Send, *, length: str | None) -> None:
        limit, received, whole = self._limits.bytes, 0, False
        end = asyncio.get_running_loop().time() + self._limits.seconds

        async def count(given: int) -> None:
            if given > limit:
                raise ImageTooLarge(f"the body has {given} bytes or more; the limit is {limit}")

        async def limited_receive() -> Message:
            nonlocal received, whole
            try:
                async with asyncio.timeout_at(None if whole else end):
                    message = await receive()
            except TimeoutError as error:
                raise SlowUpload(f"the body did not come within {self._limits.seconds:g} seconds") from error
            whole = not message.get("more_body", False)
            size = len(message.get("body", b""))
            received += size
            self._budget.take(size, held=received - size)
            await count(received)
            return message

        try:
            if needs_key(scope["path"]):
                services: Services = scope["app"].state.services
                scope["state"]["caller"] = await services.gate.admit(Headers(scope=scope))
            await count(int(length) if length and length.isdigit() else 0)
            await _until_departed(self._app, scope, limited_receive, send)
        except (Unauthorized, RateLimited, Overloaded, SlowUpload, ImageTooLarge) as error:
            await problem_response(scope["state"], error)(scope, receive, send)
        finally:
            self._budget.give(received)


async def _until_departed(app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    """Run the app, and cancel it when the caller hangs up: nobody waits for the answer any more."""
    body_done = asyncio.Event()
    departed = asyncio.Event()

    async def forward() -> Message:
        if body_done.is_set():
            await departed.wait()
            return {"type": "http.disconnect"}
        message = await receive()
        if message["type"] == "http.disconnect" or not message.get("more_body", False):
            body_done.set()
        return message

    async def watch() -> None:
        await body_done.wait()
        while (await receive())["type"] != "http.disconnect":
            pass
        departed.set()

    work = asyncio.ensure_future(app(scope, forward, send))
    watcher = asyncio.ensure_future(watch())
    try:
        await asyncio.wait({work, watcher}, return_when=asyncio.FIRST_COMPLETED)
        if work.done():
            work.result()
            return
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)
        scope["state"]["code"] = "departed"
    finally:
        watcher.cancel()
        if not work.done():
            work.cancel()
