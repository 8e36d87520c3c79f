"""/metrics on a port of its own: prometheus-client's server, in a thread, so that it answers when the loop is busy."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from prometheus_client import start_http_server

from service.settings import Settings
from service.telemetry import PrometheusObserver


@asynccontextmanager
async def serve_metrics(settings: Settings, observer: PrometheusObserver) -> AsyncIterator[None]:
    """Serve while the block runs, over TLS where the service has a certificate; raises OSError on a taken port."""
    server, thread = start_http_server(
        settings.metrics_port,
        addr=settings.host,
        registry=observer.registry,
        certfile=str(settings.tls_cert) if settings.tls_cert else None,
        keyfile=str(settings.tls_key) if settings.tls_key else None,
    )
    try:
        yield
    finally:
        await asyncio.to_thread(server.shutdown)
        server.server_close()
        thread.join()
