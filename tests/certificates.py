"""Real certificates, made on the spot: an authority, a server of this machine and a client, as PEM files."""

from dataclasses import dataclass
from pathlib import Path

import trustme


@dataclass(frozen=True, slots=True)
class Certificates:
    """Paths of PEM files."""

    authority: Path
    server: Path
    server_key: Path
    client: Path
    client_key: Path


def make_certificates(folder: Path) -> Certificates:
    """An authority of its own, a server certificate for localhost and 127.0.0.1, and a client's."""
    folder.mkdir(parents=True, exist_ok=True)
    authority = trustme.CA()
    made = Certificates(
        *(folder / f"{name}.pem" for name in ("authority", "server", "server-key", "client", "client-key"))
    )
    authority.cert_pem.write_to_path(str(made.authority))
    server = authority.issue_cert("localhost", "127.0.0.1")
    client = authority.issue_cert("gateway@ovsam.test")
    for issued, chain, key in ((server, made.server, made.server_key), (client, made.client, made.client_key)):
        for blob in issued.cert_chain_pems:
            blob.write_to_path(str(chain), append=True)
        issued.private_key_pem.write_to_path(str(key))
    return made
