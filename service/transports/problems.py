"""Errors as application/problem+json (RFC 9457)."""

import logging
import math
from collections.abc import MutableMapping, Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from pydantic import ValidationError
from starlette.exceptions import HTTPException

from service.core.errors import InvalidRequest, ServiceError, TemporaryError, Unauthorized
from service.transports.schemas import ErrorItem, Problem
from service.transports.status import status_of

PROBLEM_TYPE = "application/problem+json"
_log = logging.getLogger(__name__)


class MalformedRequest(InvalidRequest):
    """The request does not fit the schema; says where."""

    def __init__(self, error: ValidationError | RequestValidationError) -> None:
        self.items = [
            ErrorItem(pointer="/" + "/".join(str(step) for step in item["loc"]), detail=item["msg"])
            for item in _details(error)[:20]
        ]
        super().__init__("; ".join(f"{item.pointer}: {item.detail}" for item in self.items[:3]))


def _details(error: ValidationError | RequestValidationError) -> Sequence[Any]:
    """What is wrong, without what was given: there may be very much of it."""
    if isinstance(error, ValidationError):
        return error.errors(include_url=False, include_context=False, include_input=False)
    return error.errors()


def problem_response(state: MutableMapping[str, Any], error: ServiceError) -> Response:
    """The answer to a failed request, which is also counted under the error's code."""
    status = status_of(error)
    items = error.items if isinstance(error, MalformedRequest) else []
    if error.pointer is not None:
        items = [ErrorItem(pointer=error.pointer, detail=error.message)]
    headers = {}
    if isinstance(error, TemporaryError):
        headers["retry-after"] = str(math.ceil(error.retry_after))
    if isinstance(error, Unauthorized):
        headers["www-authenticate"] = 'Bearer realm="ovsam"'  # not Basic, at which browsers would ask for a password
    return _response(
        state, status.http, code=status.code, title=status.title, detail=error.message, items=items, headers=headers
    )


def install(app: FastAPI) -> None:
    """Answer every failure in this one form."""
    app.add_exception_handler(ServiceError, _on_service_error)
    app.add_exception_handler(RequestValidationError, _on_validation_error)
    app.add_exception_handler(HTTPException, _on_http_error)


async def _on_service_error(request: Request, error: Exception) -> Response:
    if not isinstance(error, ServiceError):
        raise error
    return problem_response(request.scope["state"], error)


async def _on_validation_error(request: Request, error: Exception) -> Response:
    if not isinstance(error, RequestValidationError):
        raise error
    return problem_response(request.scope["state"], MalformedRequest(error))


async def _on_http_error(request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    code = {404: "not-found", 405: "method-not-allowed"}.get(error.status_code, "http-error")
    state, headers = request.scope["state"], dict(error.headers or {})
    return _response(
        state,
        error.status_code,
        code=code,
        title=str(error.detail),
        detail=str(error.detail),
        items=[],
        headers=headers,
    )


def unexpected_response(state: MutableMapping[str, Any], error: Exception) -> Response:
    """The answer to a failure that nobody foresaw: logged whole, told without its text."""
    _log.error("request %s failed", state.get("request_id"), exc_info=error)
    detail = "the service failed; the operator's log has the request id"
    return _response(state, 500, code="internal", title="Internal error", detail=detail, items=[])


def _response(
    state: MutableMapping[str, Any],
    status: int,
    *,
    code: str,
    title: str,
    detail: str,
    items: list[ErrorItem],
    headers: dict[str, str] | None = None,
) -> Response:
    state["code"] = code
    problem = Problem(
        type=f"urn:ovsam:problem:{code}",
        title=title,
        status=status,
        detail=detail,
        code=code,
        request_id=state.get("request_id", ""),
        errors=items,
    )
    return JSONResponse(problem.model_dump(), status_code=status, headers=headers, media_type=PROBLEM_TYPE)
