"""All settings, read once from the environment (prefix OVSAM_) and frozen."""

import os
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import parse_qs, urlsplit

from pydantic import BeforeValidator, Field, FilePath, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

_HERE = Path(__file__).resolve().parent.parent
_REDIS_SCHEMES = ("redis", "rediss", "unix", "redis+sentinel", "rediss+sentinel", "redis+cluster", "rediss+cluster")
_REDIS_FILES = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
OptionalFile = Annotated[FilePath | None, BeforeValidator(lambda value: None if value == "" else value)]
"""A file that must be there, or (empty) none."""


class Settings(BaseSettings):
    """What an operator decides; everything has a default that works on one machine."""

    model_config = SettingsConfigDict(env_prefix="OVSAM_", frozen=True, extra="ignore")

    host: str = Field("127.0.0.1", description="address to listen on")
    port: int = Field(8000, ge=0, le=65535, description="HTTP port; 0 takes a free one")
    tls_cert: OptionalFile = Field(
        None, description="PEM certificate of HTTP, gRPC and metrics; empty speaks plain text"
    )
    tls_key: OptionalFile = Field(None, validate_default=True, description="PEM key of the certificate")
    model_repository: Path = Field(_HERE / "model_repository", description="folder of the model to serve")
    triton_url: str = Field(
        "", description="gRPC host:port[,host:port] of Triton; empty runs the model in this process"
    )
    triton_encoder_url: str = Field(
        "",
        description="gRPC host:port[,host:port] of the Triton that serves image_encoder alone;"
        " empty asks OVSAM_TRITON_URL for all models",
    )
    triton_ca: OptionalFile = Field(
        None, description="PEM certificates that Triton's is judged by; empty speaks plain text"
    )
    triton_cert: OptionalFile = Field(None, description="PEM certificate shown to Triton; empty shows none")
    triton_key: OptionalFile = Field(None, validate_default=True, description="PEM key of the certificate for Triton")
    triton_shared_memory: bool = Field(
        default=False, description="send embeddings to a Triton on this host in shared memory"
    )
    grpc_port: int = Field(0, ge=0, le=65535, description="gRPC port; 0 serves no gRPC")
    grpc_client_ca: OptionalFile = Field(
        None, description="PEM certificates that gRPC callers must prove; empty asks for none"
    )
    metrics_port: int = Field(0, ge=0, le=65535, description="port of /metrics alone; 0 serves it on the HTTP port")
    redis_url: str = Field(
        "",
        description="Redis URL of the shared cache (rediss:// with ?ssl_ca_certs=FILE for TLS,"
        " redis+sentinel://host,host/master, redis+cluster://host,host); empty keeps embeddings in memory only",
    )
    cache_dir: Path = Field(Path("~/.cache/ovsam"), description="folder for text embeddings and own vocabularies")
    engine: Literal["onnxruntime", "openvino"] = Field(
        "onnxruntime", description="runtime of the model in this process; openvino needs the extra of that name"
    )
    openvino_precision: Literal["f32", "bf16", "f16", "auto"] = Field(
        "f32",
        description="what OpenVINO computes the image encoder in, the light graphs staying in f32;"
        " auto is what the processor does fastest",
    )
    threads: int = Field(0, ge=0, description="threads of one model call in this process; 0 is one for each core")
    memory_cache_mib: int = Field(1024, ge=0, description="MiB of embeddings kept in memory")
    redis_ttl_seconds: int = Field(86_400, ge=1, description="seconds an embedding is kept in Redis after its last use")
    request_seconds: float = Field(30.0, gt=0, description="seconds that one request may take")
    drain_seconds: float = Field(
        0.0, ge=0, description="seconds to serve on, no longer ready, after SIGTERM; more than a readiness period"
    )
    upload_seconds: float = Field(60.0, gt=0, description="seconds that a request's body may take to come")
    max_body_mib: int = Field(32, ge=1, description="MiB of one request's body")
    max_bodies_mib: int = Field(512, ge=1, description="MiB of all requests' bodies that are in hand at a time")
    max_megapixels: float = Field(50.0, gt=0, description="megapixels of one image")
    max_prompts: int = Field(256, ge=1, description="prompts of one request")
    max_points: int = Field(64, ge=1, description="points of one prompt")
    max_names: int = Field(30_000, ge=1, description="class names of one vocabulary")
    max_queue: int = Field(1024, ge=1, description="prompts that may wait for the decoder")
    fetch_allow: str = Field("", description="hosts (host or host:port, commas) that images may be fetched from")
    label_studio_url: str = Field(
        "", description="Label Studio's own address for all its projects; empty takes the one that each set-up tells"
    )
    label_studio_token: str = Field(
        "", description="API token for pictures in Label Studio; empty takes the one that each set-up tells"
    )
    api_keys_file: OptionalFile = Field(None, description="file of the API keys' hashes; empty lets everybody in")
    cors_origins: str = Field(
        "", description="origins (https://host, commas) whose pages may call; * is all, empty none"
    )
    rate_per_second: float = Field(
        0.0, ge=0, description="requests a second of one tenant, all gateways together; 0 sets no limit"
    )
    rate_burst: int = Field(100, ge=1, description="requests of one tenant at once")
    log_level: str = Field("info", description="debug, info, warning or error")
    log_format: Literal["text", "json"] = Field("text", description="text for eyes, json (a line each) for machines")
    traces_url: str = Field(
        "",
        description="OTLP/gRPC address (http://host:4317) that takes traces, needs the extra `tracing`; empty is off",
    )

    @field_validator("model_repository", "cache_dir")
    @classmethod
    def _absolute(cls, path: Path) -> Path:
        return path.expanduser().resolve()

    @field_validator("log_level")
    @classmethod
    def _known_level(cls, level: str) -> str:
        if level.lower() not in {"debug", "info", "warning", "error"}:
            raise ValueError("must be debug, info, warning or error")
        return level.lower()

    @field_validator("fetch_allow")
    @classmethod
    def _hosts(cls, text: str) -> str:
        for entry in _entries(text):
            if "*" in entry:
                raise ValueError(f"{entry!r} has a wildcard; each host is listed by its whole name")
            _check_host(entry if entry.count(":") < 2 or entry.startswith("[") else f"[{entry}]")
        return text

    @field_validator("triton_url", "triton_encoder_url")
    @classmethod
    def _servers(cls, text: str, info: ValidationInfo) -> str:
        for entry in _entries(text):
            if _check_host(entry) is None:
                raise ValueError(f"{entry!r} has no port")
        if info.field_name == "triton_encoder_url" and text and not info.data.get("triton_url", "wrong itself"):
            raise ValueError("needs OVSAM_TRITON_URL, which serves the other models")
        return text

    @field_validator("redis_url")
    @classmethod
    def _redis(cls, url: str) -> str:
        if not url:
            return url
        parts = urlsplit(url)
        if parts.scheme not in _REDIS_SCHEMES:
            raise ValueError(f"must begin with one of {', '.join(f'{scheme}://' for scheme in _REDIS_SCHEMES)}")
        if parts.scheme.endswith("+sentinel") and not parts.path.strip("/"):
            raise ValueError("names no master; write redis+sentinel://host:26379/mymaster")
        for name in _REDIS_FILES:
            for path in parse_qs(parts.query).get(name, []):
                if not Path(path).is_file():
                    raise ValueError(f"names {name}={path}, which is no file")
        return url

    @field_validator("cors_origins")
    @classmethod
    def _origins(cls, text: str) -> str:
        for entry in _entries(text):
            parts = urlsplit(entry)
            if entry != "*" and (parts.scheme not in {"http", "https"} or f"{parts.scheme}://{parts.netloc}" != entry):
                raise ValueError(f"{entry!r} is not an origin such as https://host or https://host:port")
        return text

    @field_validator("traces_url", "label_studio_url")
    @classmethod
    def _web_address(cls, url: str) -> str:
        if url and (urlsplit(url).scheme not in {"http", "https"} or not urlsplit(url).hostname):
            raise ValueError("must be http://host:port or https://host:port")
        return url

    @field_validator("tls_key", "triton_key")
    @classmethod
    def _pair(cls, key: Path | None, info: ValidationInfo) -> Path | None:
        cert = (info.field_name or "").replace("key", "cert")
        if cert not in info.data:  # is wrong itself, and told
            return key
        if (key is None) != (info.data[cert] is None):
            raise ValueError(
                f"a certificate and its key go together; set OVSAM_{cert.upper()} and this one, or neither"
            )
        if key is not None:
            _check_pem(lambda context: context.load_cert_chain(info.data[cert], key))
        return key

    @field_validator("triton_ca", "grpc_client_ca")
    @classmethod
    def _authority(cls, path: Path | None) -> Path | None:
        if path is not None:
            _check_pem(lambda context: context.load_verify_locations(path))
        return path

    @field_validator("grpc_port", "metrics_port")
    @classmethod
    def _own_port(cls, port: int, info: ValidationInfo) -> int:
        for name in ("port", "grpc_port"):
            if port and info.data.get(name) == port:
                raise ValueError(f"is the port of OVSAM_{name.upper()} already")
        return port

    @property
    def triton_urls(self) -> list[str]:
        """Each Triton's host:port."""
        return _entries(self.triton_url)

    @property
    def triton_encoder_urls(self) -> list[str]:
        """Each host:port of a Triton for the image encoder alone."""
        return _entries(self.triton_encoder_url)

    @property
    def allowed_origins(self) -> list[str]:
        """Each origin whose pages may call."""
        return _entries(self.cors_origins)

    @property
    def call_threads(self) -> int:
        """Threads of one model call."""
        return self.threads or len(os.sched_getaffinity(0))


def _entries(text: str) -> list[str]:
    return [entry.strip() for entry in text.split(",") if entry.strip()]


def _check_pem(load: Callable[[ssl.SSLContext], None]) -> None:
    try:
        load(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
    except (ssl.SSLError, OSError) as error:
        raise ValueError(f"cannot be read as PEM, or key and certificate do not belong together ({error})") from error


def _check_host(entry: str) -> int | None:
    """The port of `host`, `host:port` or `[ipv6]:port`; raises ValueError for anything else."""
    try:
        parts = urlsplit(f"//{entry}")
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise ValueError(f"{entry!r} is not a host or host:port: {error}") from error
    if parts.netloc != entry or not host or "@" in entry or entry.endswith(":") or any(map(str.isspace, entry)):
        raise ValueError(f"{entry!r} is not a host or host:port")
    return port
