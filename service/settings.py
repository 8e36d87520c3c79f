"""All settings, read once from the environment (prefix OVSAM_) and frozen."""

import os
from pathlib import Path

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

_HERE = Path(__file__).resolve().parent.parent


class Settings(BaseSettings):
    """What an operator decides; everything has a default that works on one machine."""

    model_config = SettingsConfigDict(env_prefix="OVSAM_", frozen=True, extra="ignore")

    host: str = Field("127.0.0.1", description="address to listen on")
    port: int = Field(8000, ge=0, le=65535, description="HTTP port; 0 takes a free one")
    model_repository: Path = Field(_HERE / "model_repository", description="folder of the model to serve")
    triton_url: str = Field(
        "", description="gRPC host:port[,host:port] of Triton; empty runs the model in this process"
    )
    triton_shared_memory: bool = Field(
        default=False, description="send embeddings to a Triton on this host in shared memory"
    )
    grpc_port: int = Field(0, ge=0, le=65535, description="gRPC port; 0 serves no gRPC")
    redis_url: str = Field("", description="Redis URL of the shared cache; empty keeps embeddings in memory only")
    cache_dir: Path = Field(Path("~/.cache/ovsam"), description="folder for text embeddings and own vocabularies")
    threads: int = Field(0, ge=0, description="threads of one model call in this process; 0 is one for each core")
    memory_cache_mib: int = Field(1024, ge=0, description="MiB of embeddings kept in memory")
    redis_ttl_seconds: int = Field(86_400, ge=1, description="seconds an embedding is kept in Redis after its last use")
    request_seconds: float = Field(30.0, gt=0, description="seconds that one request may take")
    drain_seconds: float = Field(
        0.0, ge=0, description="seconds to serve on, no longer ready, after SIGTERM; more than a readiness period"
    )
    max_body_mib: int = Field(32, ge=1, description="MiB of one request's body")
    max_megapixels: float = Field(50.0, gt=0, description="megapixels of one image")
    max_prompts: int = Field(256, ge=1, description="prompts of one request")
    max_points: int = Field(64, ge=1, description="points of one prompt")
    max_names: int = Field(30_000, ge=1, description="class names of one vocabulary")
    max_queue: int = Field(1024, ge=1, description="prompts that may wait for the decoder")
    fetch_allow: str = Field("", description="hosts (host or host:port, commas) that images may be fetched from")
    log_level: str = Field("info", description="debug, info, warning or error")

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

    @property
    def triton_urls(self) -> list[str]:
        """Each Triton's host:port."""
        return [url.strip() for url in self.triton_url.split(",") if url.strip()]

    @property
    def call_threads(self) -> int:
        """Threads of one model call."""
        return self.threads or len(os.sched_getaffinity(0))
