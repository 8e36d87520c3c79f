"""Every wire over TLS with certificates made on the spot: HTTP, gRPC, metrics, a real Redis, a real Triton."""

import json
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from redis.asyncio import Redis

from service.adapters.manifest import read_repository
from service.adapters.redis_cache import RedisCache, RedisLimits
from service.adapters.triton_backend import TritonBackend
from service.adapters.triton_endpoint import Wire
from service.core.errors import BackendUnavailable
from service.settings import Settings
from service.tls import triton_credentials
from service.transports import ovsam_pb2 as pb
from service.transports import ovsam_pb2_grpc as pb_grpc
from tests.certificates import Certificates, make_certificates
from tests.end_to_end.gateway import ROOT, SAMPLES, Gateway, running_gateway
from tests.end_to_end.triton_server import QUICK_PROBES, TritonProcess, running_triton
from tests.fakes import RecordingObserver
from tests.http_service import metric
from tests.ports import free_port
from tests.redis_server import RedisServer, redis_server

COFFEE = (SAMPLES / "coffee.jpg").read_bytes()
REPOSITORY = ROOT / "model_repository"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tls")


@pytest.fixture(scope="module")
def made(folder: Path) -> Certificates:
    return make_certificates(folder / "ours")


@pytest.fixture(scope="module")
def foreign(folder: Path) -> Certificates:
    return make_certificates(folder / "foreign")


@pytest.fixture(scope="module")
def triton(folder: Path, made: Certificates) -> Iterator[TritonProcess]:
    flags = ["--grpc-use-ssl-mutual=true", f"--grpc-root-cert={made.authority}"]
    flags += [f"--grpc-server-cert={made.server}", f"--grpc-server-key={made.server_key}"]
    with running_triton(REPOSITORY, folder, [*QUICK_PROBES, "--", *flags]) as process:
        yield process


@dataclass(frozen=True, slots=True)
class TlsRedis:
    server: RedisServer
    port: int

    def url(self, authority: Path, certificate: Path, key: Path) -> str:
        files = f"ssl_ca_certs={authority}&ssl_certfile={certificate}&ssl_keyfile={key}"
        return f"rediss://localhost:{self.port}/0?{files}"


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory, made: Certificates) -> Iterator[TlsRedis]:
    port = free_port()
    files = ["--tls-cert-file", str(made.server), "--tls-key-file", str(made.server_key)]
    files += ["--tls-ca-cert-file", str(made.authority), "--tls-auth-clients", "yes"]
    with redis_server(tmp_path_factory.mktemp("redis"), "--tls-port", str(port), *files) as server:
        yield TlsRedis(server, port)


@dataclass(frozen=True, slots=True)
class Guarded:
    """A gateway that speaks and asks for TLS everywhere."""

    gateway: Gateway
    grpc: str
    metrics: str


@pytest.fixture(scope="module")
def guarded(folder: Path, made: Certificates, triton: TritonProcess, redis: TlsRedis) -> Iterator[Guarded]:
    ports = free_port(), free_port()
    settings = {
        "tls_cert": str(made.server),
        "tls_key": str(made.server_key),
        "grpc_port": str(ports[0]),
        "grpc_client_ca": str(made.authority),
        "metrics_port": str(ports[1]),
        "triton_url": f"localhost:{triton.grpc_port}",
        "triton_ca": str(made.authority),
        "triton_cert": str(made.client),
        "triton_key": str(made.client_key),
        "redis_url": redis.url(made.authority, made.client, made.client_key),
        "log_format": "json",
    }
    with running_gateway(folder, **settings) as gateway:
        yield Guarded(gateway, f"localhost:{ports[0]}", f"https://127.0.0.1:{ports[1]}/metrics")


def trusting(certificates: Certificates) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(certificates.authority))


def credentials(authority: Certificates, shown: Certificates | None = None) -> grpc.ChannelCredentials:
    return grpc.ssl_channel_credentials(
        root_certificates=authority.authority.read_bytes(),
        private_key=shown.client_key.read_bytes() if shown else None,
        certificate_chain=shown.client.read_bytes() if shown else None,
    )


def test_https_answers_who_trusts_it_and_plain_text_not(
    guarded: Guarded, made: Certificates, foreign: Certificates, redis: TlsRedis
) -> None:
    url = guarded.gateway.url
    assert url.startswith("https://")
    parts: dict[str, Any] = {
        "image": COFFEE,
        "request": (None, b'{"prompts":[{"points":[{"x":340,"y":200}]}],"classify":null}'),
    }
    with httpx.Client(verify=trusting(made), timeout=60) as http:
        answer = http.post(f"{url}/v1/segment", files=parts)  # through Triton
        assert answer.json()["results"][0]["area"] > 0
        text = http.get(guarded.metrics).text
        assert metric(text, "ovsam_batch_items_count", model="image_encoder") == 1
        assert metric(text, "ovsam_cache_faults_total", kind="unavailable") == 0
        assert http.get(f"{url}/metrics").status_code == 404
        for _ in range(10):  # a busy machine may need more than Redis is given once
            if http.put(f"{url}/v1/vocabularies/ours", json={"names": ["cup"]}).status_code == 204:
                break
    with redis.server.client() as client:
        assert client.hkeys("ovsam:vocabularies:public") == [b"ours"]
    for wrong in (url.replace("https", "http"), url):
        with pytest.raises(httpx.TransportError):
            httpx.get(f"{wrong}/healthz", verify=trusting(foreign))


def test_grpc_asks_callers_to_prove_themselves(guarded: Guarded, made: Certificates, foreign: Certificates) -> None:
    with grpc.secure_channel(guarded.grpc, credentials(made, made)) as channel:
        reply = pb_grpc.SegmentationStub(channel).PutImage(iter([pb.ImageChunk(content=COFFEE)]), timeout=60)
        assert reply.digest.startswith("sha256:")
    for refused in (credentials(made), credentials(made, foreign), credentials(foreign, made)):
        with grpc.secure_channel(guarded.grpc, refused) as channel, pytest.raises(grpc.RpcError) as failure:
            pb_grpc.SegmentationStub(channel).ListVocabularies(pb.ListVocabulariesRequest(), timeout=10)
        assert failure.value.code() is grpc.StatusCode.UNAVAILABLE


def test_our_lines_of_the_log_are_objects_and_none_names_a_file_or_url(guarded: Guarded) -> None:
    written = guarded.gateway.log.read_text().splitlines()
    lines = [json.loads(line) for line in written if ".cc:" not in line]  # gRPC's C library tells failed handshakes
    asked = [line for line in lines if line.get("route") == "/v1/segment"]
    assert asked[0]["status"] == "200"
    assert set(asked[0]["stages"]) >= {"fetch", "encode", "decode", "render"}
    assert "ssl_keyfile" not in guarded.gateway.log.read_text()


async def test_triton_is_not_believed_without_its_certificate_nor_does_it_believe_us(
    triton: TritonProcess, made: Certificates, foreign: Certificates
) -> None:
    settings = Settings.model_validate(
        {"triton_ca": str(made.authority), "triton_cert": str(made.client), "triton_key": str(made.client_key)}
    )
    url = f"localhost:{triton.grpc_port}"
    ours = TritonBackend(read_repository(REPOSITORY), [url], wire=Wire(triton_credentials(settings)))
    await ours.probe()
    await ours.close()
    for wire in (Wire(), Wire(credentials(made)), Wire(credentials(made, foreign)), Wire(credentials(foreign, made))):
        backend = TritonBackend(read_repository(REPOSITORY), [url], wire=wire)
        with pytest.raises(BackendUnavailable):
            await backend.probe()
        await backend.close()


async def test_redis_is_not_believed_without_its_certificate_nor_does_it_believe_us(
    redis: TlsRedis, made: Certificates, foreign: Certificates
) -> None:
    for url, kept in (
        (redis.url(made.authority, made.client, made.client_key), True),
        (redis.url(foreign.authority, made.client, made.client_key), False),
        (redis.url(made.authority, foreign.client, foreign.client_key), False),
    ):
        observer = RecordingObserver()
        cache = RedisCache(Redis.from_url(url), limits=RedisLimits(timeout=5.0), observer=observer)
        await cache.put("key", {"part": {}})
        assert ("part" in await cache.get("key", ["part"])) is kept
        assert (observer.counts["fault:unavailable"] == 0) is kept
        await cache.delete("key")
        await cache.close()
