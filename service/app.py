"""The composition root: the only file that knows adapters and transports. Opens everything, closes it in reverse."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

from fastapi import FastAPI
from fastapi.staticfiles import StaticFiles
from fastapi_offline import FastAPIOffline
from redis.asyncio import Redis
from starlette.middleware.cors import CORSMiddleware

from service.adapters.fetcher import AllowList, Fetcher
from service.adapters.keys import KeyFile, OpenDoor
from service.adapters.leases import LocalLeases, RedisLeases
from service.adapters.manifest import Repository, read_repository
from service.adapters.memory_cache import MemoryCache
from service.adapters.onnx_backend import OnnxBackend
from service.adapters.openvino_backend import OpenVinoBackend
from service.adapters.rate_limits import LocalRates, RedisRates
from service.adapters.redis_cache import RedisCache, RedisLimits
from service.adapters.redis_client import open_redis
from service.adapters.shared_slots import SlotLimits
from service.adapters.split_backend import ENCODER, OTHERS, SplitBackend
from service.adapters.tiered_cache import TieredCache
from service.adapters.tokenizer import Tokenizer
from service.adapters.triton_backend import TritonBackend
from service.adapters.triton_endpoint import Wire
from service.adapters.vocabulary_library import FolderLibrary
from service.adapters.vocabulary_stores import FolderVocabularyStore, RedisVocabularyStore
from service.core.access import Rate
from service.core.embedder import Embedder, ImageLimits
from service.core.ports import EmbeddingCache, EncodeLeases, ModelBackend
from service.core.requests import PromptLimits
from service.core.segmenter import Segmenter
from service.core.vocabularies import Vocabularies, VocabularyLimits
from service.metrics_server import serve_metrics
from service.settings import Settings
from service.telemetry import PrometheusObserver
from service.tls import server_credentials, triton_credentials
from service.tracing import open_tracing
from service.transports import cvat, http_api, label_studio, metrics, problems
from service.transports.auth import Gate
from service.transports.cross_origin import CORS
from service.transports.grpc_server import serve_grpc
from service.transports.label_studio_access import Access, Projects
from service.transports.middleware import BodyLimits, RequestMiddleware
from service.transports.services import Services

_WEB = Path(__file__).parent / "transports" / "web"
_WORKERS = 4  # model calls in threads: each kind of call has a slot, so that a click never waits for an upload
_LEASE_SECONDS = 5.0  # how long a dead gateway's image stays unencoded
_log = logging.getLogger(__name__)


async def open_services(settings: Settings, observer: PrometheusObserver, stack: AsyncExitStack) -> Services:
    """Load the model, open the caches and warm up; everything is closed by `stack`."""
    backend = await open_backend(settings, observer, stack)
    redis = open_redis(settings.redis_url) if settings.redis_url else None
    cache = open_cache(settings, redis, observer)
    stack.push_async_callback(cache.close)
    vocabularies = Vocabularies(
        backend=backend,
        tokenize=Tokenizer(settings.model_repository),
        library=FolderLibrary(settings.model_repository, cache=settings.cache_dir),
        store=RedisVocabularyStore(redis) if redis else FolderVocabularyStore(settings.cache_dir),
        limits=VocabularyLimits(names=settings.max_names),
    )
    leases = RedisLeases(redis, seconds=_LEASE_SECONDS, observer=observer) if redis else LocalLeases()
    gate = open_gate(settings, redis, observer)
    services = assemble(
        settings, backend=backend, cache=cache, leases=leases, vocabularies=vocabularies, gate=gate, observer=observer
    )
    for part in (vocabularies, services.embedder, services.segmenter):
        stack.push_async_callback(part.close)
    await backend.probe()
    await vocabularies.classifier("", backend.spec.default_vocabulary)
    _log.info("serving %s, revision %s", backend.spec.variant, backend.spec.revision[:16])
    return services


def assemble(
    settings: Settings,
    *,
    backend: ModelBackend,
    cache: EmbeddingCache,
    leases: EncodeLeases,
    vocabularies: Vocabularies,
    gate: Gate,
    observer: PrometheusObserver,
) -> Services:
    """Put the use cases together over ready parts; tests pass parts of their own."""
    images = ImageLimits(
        body_bytes=settings.max_body_mib * 2**20,
        pixels=int(settings.max_megapixels * 1_000_000),
        seconds=settings.request_seconds,
    )
    prompts = PromptLimits(
        prompts=settings.max_prompts,
        points=settings.max_points,
        queue=settings.max_queue,
        seconds=settings.request_seconds,
    )
    embedder = Embedder(backend=backend, cache=cache, leases=leases, observer=observer, limits=images)
    segmenter = Segmenter(
        backend=backend,
        embedder=embedder,
        cache=cache,
        vocabularies=vocabularies,
        observer=observer,
        limits=prompts,
    )
    return Services(
        backend=backend,
        segmenter=segmenter,
        embedder=embedder,
        vocabularies=vocabularies,
        observer=observer,
        gate=gate,
        request_seconds=settings.request_seconds,
        upload_seconds=settings.upload_seconds,
        fetch=Fetcher(allow=AllowList.parse(settings.fetch_allow), max_bytes=images.body_bytes),
    )


async def open_backend(settings: Settings, observer: PrometheusObserver, stack: AsyncExitStack) -> ModelBackend:
    """The engine that the settings name."""
    repository = read_repository(settings.model_repository)
    backend: ModelBackend
    if settings.triton_url:
        backend = open_triton(settings, repository, observer)
    elif settings.engine == "openvino":
        backend = OpenVinoBackend(
            repository, threads=settings.call_threads, workers=_WORKERS, precision=settings.openvino_precision
        )
    else:
        backend = OnnxBackend(repository, threads=settings.call_threads, workers=_WORKERS)
    stack.push_async_callback(backend.close)
    return backend


def open_triton(settings: Settings, repository: Repository, observer: PrometheusObserver) -> ModelBackend:
    """One group of servers, or one for the image encoder and one for all else."""
    slots = SlotLimits() if settings.triton_shared_memory else None
    wire = Wire(triton_credentials(settings), observer.interceptors())
    group = partial(TritonBackend, repository, wire=wire, slots=slots)
    if not settings.triton_encoder_url:
        return group(settings.triton_urls)
    return SplitBackend(
        encoder=group(settings.triton_encoder_urls, models=[ENCODER]),
        others=group(settings.triton_urls, models=OTHERS),
    )


def open_cache(settings: Settings, redis: Redis | None, observer: PrometheusObserver) -> EmbeddingCache:
    """Memory, in front of Redis where there is one."""
    memory = MemoryCache(settings.memory_cache_mib * 2**20)
    if redis is None:
        return memory
    limits = RedisLimits(ttl=settings.redis_ttl_seconds)
    return TieredCache(memory, RedisCache(redis, limits=limits, observer=observer))


def open_gate(settings: Settings, redis: Redis | None, observer: PrometheusObserver) -> Gate:
    """Open to all without a key file; rates are counted in Redis where there is one."""
    keys = KeyFile(settings.api_keys_file) if settings.api_keys_file else OpenDoor()
    rates = RedisRates(redis, observer=observer) if redis else LocalRates()
    per_second = settings.rate_per_second
    return Gate(keys, rates, rate=Rate(per_second, settings.rate_burst) if per_second else None)


Opener = Callable[[Settings, PrometheusObserver, AsyncExitStack], Awaitable[Services]]


def build_app(settings: Settings, *, opener: Opener = open_services) -> FastAPI:
    """The ASGI app; `opener` makes the services when it starts, not before."""
    observer = PrometheusObserver(open_tracing(settings.traces_url))

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            stack.push_async_callback(asyncio.to_thread, observer.close)
            services = app.state.services = await opener(settings, observer, stack)
            if settings.metrics_port:
                await stack.enter_async_context(serve_metrics(settings, observer))
            if settings.grpc_port:
                address, credentials = f"{settings.host}:{settings.grpc_port}", server_credentials(settings)
                await stack.enter_async_context(serve_grpc(services, address=address, credentials=credentials))
            yield

    app = FastAPIOffline(  # FastAPI, but that /docs loads nothing from a CDN
        title="Open-Vocabulary SAM",
        summary="Click or box an object, get its mask and its name.",
        version="0.1.0",
        lifespan=lifespan,
        redoc_url=None,
        static_url="/docs/files",
        favicon_url="icon.svg",
    )
    app.state.label_studio = Projects(Access(settings.label_studio_url, settings.label_studio_token))
    for transport in (http_api, label_studio, cvat):
        app.include_router(transport.router)
    if not settings.metrics_port:
        app.include_router(metrics.router)
    problems.install(app)
    app.mount("/", StaticFiles(directory=_WEB, html=True), name="web")
    app.add_middleware(
        RequestMiddleware,
        observer=observer,
        limits=BodyLimits(
            bytes=settings.max_body_mib * 2**20,
            all_bytes=settings.max_bodies_mib * 2**20,
            seconds=settings.upload_seconds,
        ),
    )
    if settings.allowed_origins:  # around the rest: a browser's question carries no key, and errors are for it too
        app.add_middleware(CORSMiddleware, allow_origins=settings.allowed_origins, **CORS)
    return app
