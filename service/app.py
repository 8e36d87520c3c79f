"""The composition root: the only file that knows adapters and transports. Opens everything, closes it in reverse."""

import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from fastapi import FastAPI
from fastapi.staticfiles import StaticFiles
from redis.asyncio import Redis

from service.adapters.manifest import read_repository
from service.adapters.memory_cache import MemoryCache
from service.adapters.onnx_backend import OnnxBackend
from service.adapters.redis_cache import RedisCache, RedisLimits
from service.adapters.tiered_cache import TieredCache
from service.adapters.tokenizer import Tokenizer
from service.adapters.vocabulary_library import FolderLibrary
from service.adapters.vocabulary_stores import FolderVocabularyStore, RedisVocabularyStore
from service.core.embedder import Embedder, ImageLimits
from service.core.ports import EmbeddingCache, ModelBackend, VocabularyStore
from service.core.requests import PromptLimits
from service.core.segmenter import Segmenter
from service.core.vocabularies import Vocabularies, VocabularyLimits
from service.settings import Settings
from service.telemetry import PrometheusObserver
from service.transports import http_api, problems
from service.transports.middleware import RequestMiddleware
from service.transports.services import Services

_WEB = Path(__file__).parent / "transports" / "web"
_WORKERS = 4  # model calls in threads: each kind of call has a slot, so that a click never waits for an upload
_log = logging.getLogger(__name__)


def build_app(settings: Settings) -> FastAPI:
    """The ASGI app; models are loaded when it starts, not before."""
    observer = PrometheusObserver()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            app.state.services = await open_services(settings, observer, stack)
            yield

    app = FastAPI(
        title="Open-Vocabulary SAM",
        summary="Click or box an object, get its mask and its name.",
        version="0.1.0",
        lifespan=lifespan,
    )
    app.include_router(http_api.router)
    problems.install(app)
    app.mount("/", StaticFiles(directory=_WEB, html=True), name="web")
    app.add_middleware(RequestMiddleware, observer=observer, max_body_bytes=settings.max_body_mib * 2**20)
    return app


async def open_services(settings: Settings, observer: PrometheusObserver, stack: AsyncExitStack) -> Services:
    """Load the model, open the caches and warm up; everything is closed by `stack`."""
    backend = await open_backend(settings, stack)
    redis = Redis.from_url(settings.redis_url) if settings.redis_url else None
    cache = open_cache(settings, redis, observer)
    stack.push_async_callback(cache.close)
    store: VocabularyStore = RedisVocabularyStore(redis) if redis else FolderVocabularyStore(settings.cache_dir)
    vocabularies = Vocabularies(
        backend=backend,
        tokenize=Tokenizer(settings.model_repository),
        library=FolderLibrary(settings.model_repository, cache=settings.cache_dir),
        store=store,
        limits=VocabularyLimits(names=settings.max_names),
    )
    stack.push_async_callback(vocabularies.close)
    images = ImageLimits(
        body_bytes=settings.max_body_mib * 2**20,
        pixels=int(settings.max_megapixels * 1_000_000),
        seconds=settings.request_seconds,
    )
    embedder = Embedder(backend=backend, cache=cache, observer=observer, limits=images)
    stack.push_async_callback(embedder.close)
    segmenter = Segmenter(
        backend=backend,
        embedder=embedder,
        cache=cache,
        vocabularies=vocabularies,
        observer=observer,
        limits=PromptLimits(prompts=settings.max_prompts, points=settings.max_points, queue=settings.max_queue),
    )
    stack.push_async_callback(segmenter.close)
    await backend.probe()
    await vocabularies.classifier("", backend.spec.default_vocabulary)
    _log.info("serving %s, revision %s", backend.spec.variant, backend.spec.revision[:16])
    return Services(
        backend=backend,
        segmenter=segmenter,
        embedder=embedder,
        vocabularies=vocabularies,
        observer=observer,
        request_seconds=settings.request_seconds,
        max_body_bytes=images.body_bytes,
    )


async def open_backend(settings: Settings, stack: AsyncExitStack) -> ModelBackend:
    """The engine that the settings name."""
    repository = read_repository(settings.model_repository)
    backend = OnnxBackend(repository, threads=settings.call_threads, workers=_WORKERS)
    stack.push_async_callback(backend.close)
    return backend


def open_cache(settings: Settings, redis: Redis | None, observer: PrometheusObserver) -> EmbeddingCache:
    """Memory, in front of Redis where there is one."""
    memory = MemoryCache(settings.memory_cache_mib * 2**20)
    if redis is None:
        return memory
    limits = RedisLimits(ttl=settings.redis_ttl_seconds)
    return TieredCache(memory, RedisCache(redis, limits=limits, observer=observer))
