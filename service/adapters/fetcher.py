"""Fetches URLs under the operator's allow list: the one place from which the service calls addresses that users choose.

A name is resolved once, every address it has is judged, and the connection goes to a judged address, so a second answer
of the name server cannot lead elsewhere. Redirects are followed by hand and judged like the first URL.
"""

import asyncio
import ipaddress
import socket
import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import httpx

from service.core.errors import FetchRefused

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolve: TypeAlias = Callable[[str, int], Awaitable[Sequence[str]]]
_LOCAL_SUFFIXES = (".localhost", ".local", ".internal", ".svc", ".lan", ".home.arpa")
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_PORTS = {"http": 80, "https": 443}
_REDIRECTS = {301, 302, 303, 307, 308}
_MAX_REDIRECTS = 5
_MAX_PORT = 65535


@dataclass(frozen=True, slots=True)
class AllowList:
    """Hosts that may be fetched from, each on one port or (None) on any.

    Being listed lets a host answer from a public address. An address that is not public is reached only when it is
    listed itself or belongs to a name that is local by its form (`localhost`, a name without dots as in Compose and
    Kubernetes, `.internal` ...); link-local ones, where clouds keep credentials, only when listed themselves.
    """

    hosts: frozenset[tuple[str, int | None]]

    @classmethod
    def parse(cls, text: str) -> "AllowList":
        """Read `host`, `host:port`, `[ipv6]:port`, separated by commas; raises ValueError."""
        return cls(frozenset(_entry(part.strip()) for part in text.split(",") if part.strip()))

    def check(self, url: httpx.URL) -> None:
        """Raise FetchRefused unless the URL is plain http(s) to a listed host."""
        if url.scheme not in _PORTS:
            raise FetchRefused("only http and https URLs can be fetched")
        if url.userinfo:
            raise FetchRefused("a URL with a user name or password is not fetched")
        host, port = _host_of(url), _port_of(url)
        if not host or port > _MAX_PORT:
            raise FetchRefused("the URL cannot be read")
        if not {(host, None), (host, port)} & self.hosts:
            raise FetchRefused(f"fetching from {host}:{port} is not allowed on this server")

    def check_address(self, host: str, address: Address) -> None:
        """Raise FetchRefused unless a listed host may be reached at this address."""
        address = _unwrap(address)
        if any(name == str(address) for name, _ in self.hosts) or _is_public(address):
            return
        local = host == "localhost" or "." not in host or host.endswith(_LOCAL_SUFFIXES)
        if local and (address.is_private or address.is_loopback) and not _is_special(address):
            return
        raise FetchRefused(f"{host} has an address that may not be fetched from")


async def resolve_name(host: str, port: int) -> Sequence[str]:
    """The addresses of a host as the system resolves it."""
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise FetchRefused(f"{host} cannot be resolved") from error
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class Fetcher:
    """Fetches small things (an image, a token) within limits of bytes and seconds."""

    def __init__(
        self, *, allow: AllowList, max_bytes: int, seconds: float = 10.0, resolve: Resolve = resolve_name
    ) -> None:
        self._allow = allow
        self._max_bytes = max_bytes
        self._seconds = seconds
        self._resolve = resolve
        self._tls = ssl.create_default_context()  # made once: loading certificates takes longer than a fetch

    async def __call__(self, url: str, *, headers: Mapping[str, str] | None = None, body: bytes | None = None) -> bytes:
        """The content at `url`, by POST when there is a body; raises FetchRefused.

        `headers` are for the origin of `url` and are dropped by a redirect to any other.
        """
        try:
            async with asyncio.timeout(self._seconds):
                return await self._follow(httpx.URL(url), dict(headers or {}), body)
        except TimeoutError as error:
            raise FetchRefused(f"the URL was not fetched within {self._seconds:g} seconds") from error
        except httpx.InvalidURL as error:
            raise FetchRefused("the URL cannot be read") from error
        except httpx.HTTPError as error:
            raise FetchRefused(f"the URL could not be fetched: {type(error).__name__}") from error

    async def _follow(self, url: httpx.URL, headers: dict[str, str], body: bytes | None) -> bytes:
        # the environment's proxies would resolve names themselves and .netrc would add passwords
        async with httpx.AsyncClient(verify=self._tls, trust_env=False, timeout=self._seconds) as client:
            for _ in range(_MAX_REDIRECTS + 1):
                response = await self._send(client, url, headers, body)
                try:
                    if response.status_code not in _REDIRECTS or body is not None:
                        return await self._read(response)
                    target = url.join(response.headers.get("location", ""))
                finally:
                    await response.aclose()
                if _origin(target) != _origin(url):
                    headers = {}
                url = target
        raise FetchRefused(f"the URL redirects more than {_MAX_REDIRECTS} times")

    async def _send(
        self, client: httpx.AsyncClient, url: httpx.URL, headers: Mapping[str, str], body: bytes | None
    ) -> httpx.Response:
        """Ask the first address that answers, with the host's name in the Host header and in TLS."""
        self._allow.check(url)
        host = _host_of(url)
        sent = {**headers, "host": url.netloc.decode("ascii"), "accept-encoding": "identity"}
        failure: httpx.HTTPError | None = None
        for address in await self._addresses(host, _port_of(url)):
            request = client.build_request(
                "GET" if body is None else "POST",
                url.copy_with(host=address),
                headers=sent,
                content=body,
                extensions={"sni_hostname": host},
            )
            try:
                return await client.send(request, stream=True)
            except httpx.ConnectError as error:
                failure = error
        raise failure or FetchRefused(f"{host} has no address")

    async def _addresses(self, host: str, port: int) -> list[str]:
        """All addresses of the host, judged: one that is not allowed refuses the host, whichever would be taken."""
        addresses = [ipaddress.ip_address(text) for text in await self._resolve(host, port)]
        for address in addresses:
            self._allow.check_address(host, address)
        return [str(address) for address in addresses]

    async def _read(self, response: httpx.Response) -> bytes:
        if response.status_code != httpx.codes.OK:
            raise FetchRefused(f"the URL was answered with status {response.status_code}")
        if int(response.headers.get("content-length") or 0) > self._max_bytes:
            raise FetchRefused(f"the URL's content is larger than {self._max_bytes} bytes")
        content = bytearray()
        async for chunk in response.aiter_raw():
            content += chunk
            if len(content) > self._max_bytes:
                raise FetchRefused(f"the URL's content is larger than {self._max_bytes} bytes")
        return bytes(content)


def _entry(text: str) -> tuple[str, int | None]:
    try:
        return str(ipaddress.ip_address(text.strip("[]"))), None
    except ValueError:
        pass
    try:
        url = httpx.URL(f"http://{text}")
    except httpx.InvalidURL as error:
        raise ValueError(f"{text!r} is not a host or host:port") from error
    if not url.host or url.userinfo or url.raw_path != b"/":
        raise ValueError(f"{text!r} is not a host or host:port")
    port = url.port or (80 if text.endswith(":80") else None)  # httpx leaves http's own port out
    return _host_of(url), port


def _host_of(url: httpx.URL) -> str:
    """The host as it is compared and resolved: lower case, IDNA, no dot at the end; addresses in their short form."""
    host = url.raw_host.decode("ascii").strip("[]").rstrip(".").lower()
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        return host


def _port_of(url: httpx.URL) -> int:
    return url.port or _PORTS[url.scheme]


def _origin(url: httpx.URL) -> tuple[str, str, int | None]:
    return url.scheme, _host_of(url), url.port


def _unwrap(address: Address) -> Address:
    """The IPv4 address that an IPv6 one stands for, if any."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address in _NAT64:
        return ipaddress.IPv4Address(address.packed[-4:])
    return address.ipv4_mapped or address.sixtofour or (address.teredo or (None, None))[1] or address


def _is_special(address: Address) -> bool:
    return address.is_link_local or address.is_multicast or address.is_unspecified


def _is_public(address: Address) -> bool:
    return address.is_global and not _is_special(address) and not address.is_reserved
