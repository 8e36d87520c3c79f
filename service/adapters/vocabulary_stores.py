"""Where tenants' own vocabularies are kept: files of this machine, or Redis for all gateways."""

import asyncio
import hashlib
import json
import tempfile
from collections.abc import Iterable
from pathlib import Path

from redis.asyncio import Redis
from redis.exceptions import RedisError

from service.core.errors import BackendUnavailable


class FolderVocabularyStore:
    """One file for each vocabulary; file names are digests, so no name can leave the folder."""

    def __init__(self, cache: Path) -> None:
        self._folder = cache / "vocabularies"

    async def get(self, tenant: str, name: str) -> bytes | None:
        """The document, or None."""
        try:
            stored: dict[str, str] = json.loads(await asyncio.to_thread(self._path(tenant, name).read_text))
        except FileNotFoundError:
            return None
        return stored["document"].encode()

    async def put(self, tenant: str, name: str, document: bytes) -> None:
        """Keep or replace a document, moved into place whole."""
        path = self._path(tenant, name)

        def write() -> None:
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False) as file:
                json.dump({"name": name, "document": document.decode()}, file)
            Path(file.name).replace(path)

        await asyncio.to_thread(write)

    async def delete(self, tenant: str, name: str) -> bool:
        """Forget a document."""
        try:
            await asyncio.to_thread(self._path(tenant, name).unlink)
        except FileNotFoundError:
            return False
        return True

    async def names(self, tenant: str) -> Iterable[str]:
        """The names kept for a tenant."""

        def read() -> list[str]:
            return [json.loads(path.read_text())["name"] for path in self._tenant_folder(tenant).glob("*.json")]

        return await asyncio.to_thread(read)

    def _tenant_folder(self, tenant: str) -> Path:
        return self._folder / hashlib.sha256(tenant.encode()).hexdigest()[:16]

    def _path(self, tenant: str, name: str) -> Path:
        return self._tenant_folder(tenant) / f"{hashlib.sha256(name.encode()).hexdigest()}.json"


class RedisVocabularyStore:
    """One hash for each tenant. Unlike a cache it must not forget, so a failure of Redis is told."""

    def __init__(self, client: Redis) -> None:
        self._client = client

    async def get(self, tenant: str, name: str) -> bytes | None:
        """The document, or None."""
        try:
            found = await self._client.hget(_key(tenant), name)
        except RedisError as error:
            raise BackendUnavailable("the store of vocabularies does not answer") from error
        return found.encode() if isinstance(found, str) else found

    async def put(self, tenant: str, name: str, document: bytes) -> None:
        """Keep or replace a document."""
        try:
            await self._client.hset(_key(tenant), name, document)
        except RedisError as error:
            raise BackendUnavailable("the store of vocabularies does not answer") from error

    async def delete(self, tenant: str, name: str) -> bool:
        """Forget a document."""
        try:
            return bool(await self._client.hdel(_key(tenant), name))
        except RedisError as error:
            raise BackendUnavailable("the store of vocabularies does not answer") from error

    async def names(self, tenant: str) -> Iterable[str]:
        """The names kept for a tenant."""
        try:
            return [
                name.decode() if isinstance(name, bytes) else name for name in await self._client.hkeys(_key(tenant))
            ]
        except RedisError as error:
            raise BackendUnavailable("the store of vocabularies does not answer") from error


def _key(tenant: str) -> str:
    return f"ovsam:vocabularies:{tenant}"
