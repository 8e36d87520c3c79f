"""Redis by URL: one server, a master that Sentinels name, or a cluster; the rest of the service cannot tell which.

    redis://user:password@host:6379/0            also rediss:// (TLS) and unix:///path
    redis+sentinel://user:password@s1:26379,s2:26379/mymaster      credentials are those of the data servers
    redis+cluster://user:password@n1:6379,n2:6379                  any nodes; the others are found

`rediss+sentinel` and `rediss+cluster` speak TLS, to the Sentinels too. Query parameters are redis-py's own
(`?ssl_ca_certs=...`).
"""

from typing import cast
from urllib.parse import SplitResult, urlsplit

from redis.asyncio import Redis, RedisCluster
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.connection import SSLConnection, parse_url
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel, SentinelConnectionPool
from redis.backoff import NoBackoff

_PORTS = {"sentinel": 26379, "cluster": 6379}
_SENTINEL_SECONDS = 0.3  # a dead Sentinel must not hold up the question to the next one, nor be asked twice


class _BehindSentinels(Redis):
    """A client of the master, which closes its connections to the Sentinels too; redis-py leaves them open."""

    async def aclose(self, close_connection_pool: bool | None = None) -> None:  # noqa: FBT001 - redis-py's form
        """Close everything."""
        await super().aclose(close_connection_pool)
        pool = cast(SentinelConnectionPool, self.connection_pool)
        for sentinel in pool.sentinel_manager.sentinels:
            await sentinel.aclose()


def open_redis(url: str) -> Redis:
    """A client of what the URL names; nothing is asked before the first command.

    Raises ValueError for what is no such URL.
    """
    parts = urlsplit(url)
    plain, _, shape = parts.scheme.partition("+")
    if not shape:
        return Redis.from_url(url)
    credentials, _, hosts = parts.netloc.rpartition("@")
    nodes = [_node(host, port=_PORTS[shape]) for host in hosts.split(",")]
    if shape == "cluster":
        return _cluster(parts, plain, credentials, nodes)
    options = dict(parse_url(_plain_url(parts, plain, credentials, nodes[0])))
    for of_one_server in ("host", "port"):
        options.pop(of_one_server)
    if options.pop("connection_class", None) is SSLConnection:
        options["ssl"] = True
    asked = {name: value for name, value in options.items() if name.startswith("ssl")}
    asked |= {"socket_timeout": _SENTINEL_SECONDS, "retry": Retry(NoBackoff(), 0)}
    sentinel = Sentinel(nodes, sentinel_kwargs=asked, **options)  # type: ignore[no-untyped-call]  # redis-py
    return cast(Redis, sentinel.master_for(parts.path.strip("/"), redis_class=_BehindSentinels))


def _cluster(parts: SplitResult, plain: str, credentials: str, nodes: list[tuple[str, int]]) -> Redis:
    others = [ClusterNode(host, port) for host, port in nodes[1:]]
    cluster = RedisCluster.from_url(_plain_url(parts, plain, credentials, nodes[0]), startup_nodes=others or None)
    return cast(Redis, cluster)  # the same commands, each sent to the node that holds its key


def _plain_url(parts: SplitResult, plain: str, credentials: str, node: tuple[str, int]) -> str:
    before = f"{credentials}@" if credentials else ""
    return f"{plain}://{before}{node[0]}:{node[1]}" + (f"?{parts.query}" if parts.query else "")


def _node(text: str, *, port: int) -> tuple[str, int]:
    host, _, number = text.partition(":")
    if not host or not (number.isdigit() or not number):
        raise ValueError(f"{text!r} is not host or host:port")
    return host, int(number or port)
