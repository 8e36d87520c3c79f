"""/metrics beside the interface, or on a port of its own that no ingress leads to."""

from fastapi import APIRouter, Response
from fastapi.responses import PlainTextResponse

from service.transports.http_api import Ready

router = APIRouter()


@router.get("/metrics", response_class=PlainTextResponse)
async def metrics(ready: Ready) -> Response:
    """Prometheus metrics."""
    return Response(ready.observer.render(), media_type="text/plain; version=0.0.4; charset=utf-8")
