"""The service's certificates as each library wants them."""

import grpc

from service.settings import Settings


def server_credentials(settings: Settings) -> grpc.ServerCredentials | None:
    """Of the gRPC server; with OVSAM_GRPC_CLIENT_CA callers must prove themselves. None speaks plain text."""
    if settings.tls_cert is None or settings.tls_key is None:
        return None
    authority = settings.grpc_client_ca.read_bytes() if settings.grpc_client_ca else None
    pair = (settings.tls_key.read_bytes(), settings.tls_cert.read_bytes())
    return grpc.ssl_server_credentials([pair], root_certificates=authority, require_client_auth=authority is not None)


def triton_credentials(settings: Settings) -> grpc.ChannelCredentials | None:
    """Of the channels to Triton; None speaks plain text."""
    if settings.triton_ca is None:
        return None
    return grpc.ssl_channel_credentials(
        root_certificates=settings.triton_ca.read_bytes(),
        private_key=settings.triton_key.read_bytes() if settings.triton_key else None,
        certificate_chain=settings.triton_cert.read_bytes() if settings.triton_cert else None,
    )
