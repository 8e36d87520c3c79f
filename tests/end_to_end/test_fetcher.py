"""The fetch policy against real servers on loopback: who is asked, at which address, with what, and for how long."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from service.adapters.fetcher import AllowList, Fetcher
from service.core.errors import FetchRefused

Reply = Callable[[asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Site:
    """A real HTTP server that answers each path as it was told, and remembers the heads of the requests."""

    port: int = 0
    replies: dict[str, Reply] = field(default_factory=dict)
    seen: list[str] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            self.seen.append(head)
            await self.replies[head.split(" ")[1]](writer)
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def site(**replies: Reply) -> AsyncIterator[Site]:
    running = Site(replies={f"/{name}": reply for name, reply in replies.items()})
    server = await asyncio.start_server(running.serve, "127.0.0.1", 0)
    running.port = server.sockets[0].getsockname()[1]
    async with server:
        yield running


def content(body: bytes = b"pixels") -> Reply:
    async def reply(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))

    return reply


def redirect(target: str, *, status: int = 302) -> Reply:
    async def reply(writer: asyncio.StreamWriter) -> None:
        head = f"HTTP/1.1 {status} Moved\r\nlocation: {target}\r\ncontent-length: 0\r\n\r\n"
        writer.write(head.encode())

    return reply


def status(code: int) -> Reply:
    async def reply(writer: asyncio.StreamWriter) -> None:
        writer.write(f"HTTP/1.1 {code} Sorry\r\ncontent-length: 0\r\n\r\n".encode())

    return reply


async def endless(writer: asyncio.StreamWriter) -> None:
    """A body without a length and without an end."""
    writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
    while not writer.is_closing():
        writer.write(bytes(65536))
        await writer.drain()


async def trickle(writer: asyncio.StreamWriter) -> None:
    """A byte now and then, so that no read ever times out."""
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n")
    while not writer.is_closing():
        writer.write(b"x")
        await writer.drain()
        await asyncio.sleep(0.05)


class Names:
    """A name server that gives the next of its answers each time."""

    def __init__(self, *answers: Sequence[str]) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        self.asked.append(host)
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


def fetcher(allow: str, *, resolve: Names | None = None, max_bytes: int = 100_000, seconds: float = 5.0) -> Fetcher:
    if resolve is None:
        return Fetcher(allow=AllowList.parse(allow), max_bytes=max_bytes, seconds=seconds)
    return Fetcher(allow=AllowList.parse(allow), max_bytes=max_bytes, seconds=seconds, resolve=resolve)


@pytest.mark.parametrize("entry", ["127.0.0.1", "127.0.0.1:{}", "localhost", " LOCALHOST:{} , example.org"])
async def test_a_listed_loopback_host_is_fetched_from(entry: str) -> None:
    async with site(a=content()) as own:
        host = "localhost" if "LOCAL" in entry.upper() else "127.0.0.1"
        assert await fetcher(entry.format(own.port))(f"http://{host}:{own.port}/a") == b"pixels"


@pytest.mark.parametrize(
    "entry", ["", "example.org", "127.0.0.1:1", "localhost", "127.0.0.2", "[::1]", "127.0.0.1.example.org"]
)
async def test_a_host_or_port_that_is_not_listed_is_not_called(entry: str) -> None:
    async with site(a=content()) as own:
        with pytest.raises(FetchRefused, match="not allowed"):
            await fetcher(entry)(f"http://127.0.0.1:{own.port}/a")
        assert own.seen == []


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "ftp://127.0.0.1/a",
        "gopher://127.0.0.1/a",
        "//127.0.0.1/a",
        "/a",
        "",
        "http://",
        "http://user:secret@127.0.0.1/a",
        "http://127.0.0.1:99999/a",
        "http://127.0.0.1\x00/a",
        "http://[::1/a",
        "http://2130706433/a",
        "http://0x7f.1/a",
        "http://127.1/a",
        "http://[::ffff:127.0.0.1]/a",
    ],
)
async def test_other_schemes_passwords_and_disguised_addresses_are_refused(url: str) -> None:
    with pytest.raises(FetchRefused):
        await fetcher("127.0.0.1")(url)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.1.2.3",
        "172.16.0.9",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",
        "224.0.0.1",
        "240.0.0.1",
        "::1",
        "::",
        "fe80::1",
        "fd00::1",
        "ff02::1",
        "::ffff:10.0.0.1",
        "::ffff:169.254.169.254",
        "64:ff9b::a9fe:a9fe",
        "2002:7f00:1::",
    ],
)
async def test_a_public_name_does_not_lead_inside(address: str) -> None:
    with pytest.raises(FetchRefused, match="has an address that may not be fetched from"):
        await fetcher("pictures.example.org", resolve=Names([address]))("http://pictures.example.org/a")


@pytest.mark.parametrize("address", ["169.254.169.254", "fe80::1", "::ffff:169.254.169.254", "0.0.0.0"])
@pytest.mark.parametrize("name", ["localhost", "studio", "metadata.internal"])
async def test_no_name_leads_to_where_clouds_keep_credentials(name: str, address: str) -> None:
    with pytest.raises(FetchRefused, match="has an address that may not be fetched from"):
        await fetcher(name, resolve=Names([address]))(f"http://{name}/a")


async def test_one_bad_address_among_good_ones_refuses_the_name() -> None:
    names = Names(["93.184.215.14", "10.0.0.1"])
    with pytest.raises(FetchRefused, match="has an address that may not be fetched from"):
        await fetcher("pictures.example.org", resolve=names)("http://pictures.example.org/a")


@pytest.mark.parametrize("name", ["studio", "studio.default.svc", "host.docker.internal"])
async def test_a_name_that_is_local_by_its_form_may_be_private(name: str) -> None:
    async with site(a=content()) as own:
        fetch = fetcher(f"{name}:{own.port}", resolve=Names(["127.0.0.1"]))
        assert await fetch(f"http://{name}:{own.port}/a") == b"pixels"
        assert f"host: {name}:{own.port}" in own.seen[0].lower()


async def test_an_address_that_is_listed_itself_may_be_reached_by_a_listed_name() -> None:
    async with site(a=content()) as own:
        fetch = fetcher("studio.example.org, 127.0.0.1", resolve=Names(["127.0.0.1"]))
        assert await fetch(f"http://studio.example.org:{own.port}/a") == b"pixels"


async def test_a_name_is_resolved_once_and_the_judged_address_is_called() -> None:
    """The name server would say something else the second time, as in DNS rebinding."""
    async with site(a=content()) as own:
        names = Names(["127.0.0.1"], ["169.254.169.254"])
        assert await fetcher("studio", resolve=names)(f"http://studio:{own.port}/a") == b"pixels"
        assert names.asked == ["studio"]


async def test_rebinding_between_two_fetches_is_noticed() -> None:
    async with site(a=content()) as own:
        fetch = fetcher("studio", resolve=Names(["127.0.0.1"], ["169.254.169.254"]))
        await fetch(f"http://studio:{own.port}/a")
        with pytest.raises(FetchRefused):
            await fetch(f"http://studio:{own.port}/a")


async def test_the_next_address_is_asked_when_nobody_listens_at_the_first() -> None:
    async with site(a=content()) as own:
        fetch = fetcher("localhost", resolve=Names(["::1", "127.0.0.1"]))
        assert await fetch(f"http://localhost:{own.port}/a") == b"pixels"


@pytest.mark.parametrize(
    "target",
    ["http://169.254.169.254/latest", "http://127.0.0.2/a", "http://10.0.0.1/", "file:///etc/passwd", "http://["],
)
async def test_a_redirect_is_judged_like_the_first_url(target: str) -> None:
    async with site(a=redirect(target)) as own:
        with pytest.raises(FetchRefused):
            await fetcher(f"127.0.0.1:{own.port}")(f"http://127.0.0.1:{own.port}/a")


async def test_a_redirect_to_an_unlisted_server_is_not_followed() -> None:
    async with site(secret=content()) as other, site(a=redirect(f"http://127.0.0.1:{other.port}/secret")) as own:
        with pytest.raises(FetchRefused):
            await fetcher(f"127.0.0.1:{own.port}")(f"http://127.0.0.1:{own.port}/a")
        assert other.seen == []


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
async def test_the_token_stays_with_its_origin(code: int) -> None:
    token = {"authorization": "Token secret"}
    async with site(b=content()) as other:
        there = redirect(f"http://127.0.0.1:{other.port}/b", status=code)
        async with site(a=redirect("/next", status=code), next=there) as own:
            got = await fetcher("127.0.0.1")(f"http://127.0.0.1:{own.port}/a", headers=token)
        assert got == b"pixels"
        assert ["secret" in head for head in own.seen] == [True, True]
        assert ["secret" in head for head in other.seen] == [False]


async def test_a_token_does_not_come_back_by_a_second_redirect() -> None:
    async with site() as other, site(c=content()) as own:
        other.replies["/b"] = redirect(f"http://127.0.0.1:{own.port}/c")
        own.replies["/a"] = redirect(f"http://127.0.0.1:{other.port}/b")
        url = f"http://127.0.0.1:{own.port}/a"
        assert await fetcher("127.0.0.1")(url, headers={"authorization": "Token secret"}) == b"pixels"
        assert ["secret" in head for head in own.seen] == [True, False]


async def test_redirects_without_end_end() -> None:
    async with site(a=redirect("/a")) as own:
        with pytest.raises(FetchRefused, match="redirects more than 5 times"):
            await fetcher("127.0.0.1")(f"http://127.0.0.1:{own.port}/a")
        assert len(own.seen) == 6


async def test_a_body_over_the_limit_is_refused_with_and_without_a_length() -> None:
    async with site(a=content(bytes(2000)), b=endless, c=content(bytes(1000))) as own:
        fetch = fetcher("127.0.0.1", max_bytes=1000)
        for path in "ab":
            with pytest.raises(FetchRefused, match="larger than 1000 bytes"):
                await fetch(f"http://127.0.0.1:{own.port}/{path}")
        assert len(await fetch(f"http://127.0.0.1:{own.port}/c")) == 1000


async def test_a_slow_body_ends_with_the_time_limit() -> None:
    async with site(a=trickle) as own:
        async with asyncio.timeout(3):
            with pytest.raises(FetchRefused, match="within"):
                await fetcher("127.0.0.1", seconds=0.4)(f"http://127.0.0.1:{own.port}/a")


@pytest.mark.parametrize("code", [204, 206, 304, 401, 403, 404, 500])
async def test_anything_but_200_is_refused(code: int) -> None:
    async with site(a=status(code)) as own:
        with pytest.raises(FetchRefused, match=str(code)):
            await fetcher("127.0.0.1")(f"http://127.0.0.1:{own.port}/a")


async def test_a_server_that_is_not_there_is_a_refusal() -> None:
    with pytest.raises(FetchRefused, match="could not be fetched"):
        await fetcher("127.0.0.1")("http://127.0.0.1:1/a")
    with pytest.raises(FetchRefused, match="cannot be resolved"):
        await fetcher("name.invalid")("http://name.invalid/a")


async def test_a_body_makes_it_a_post_that_follows_no_redirect() -> None:
    async with site(a=content(b"{}"), b=redirect("/a", status=307)) as own:
        fetch = fetcher("127.0.0.1")
        assert await fetch(f"http://127.0.0.1:{own.port}/a", body=b"{}") == b"{}"
        assert own.seen[0].startswith("POST /a ")
        with pytest.raises(FetchRefused, match="307"):
            await fetch(f"http://127.0.0.1:{own.port}/b", body=b"{}")


async def test_proxies_of_the_environment_are_passed_by(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
    async with site(a=content()) as own:
        assert await fetcher("127.0.0.1")(f"http://127.0.0.1:{own.port}/a") == b"pixels"


@pytest.mark.parametrize("entry", ["http://example.org", "a/b", "user@host", "host:port", ":80"])
def test_an_entry_that_is_no_host_is_an_error_when_the_service_starts(entry: str) -> None:
    with pytest.raises(ValueError, match="host"):
        AllowList.parse(entry)


def test_names_are_compared_without_case_dots_or_alphabets() -> None:
    allowed = AllowList.parse("Bücher.example., [::1]:8080, host:80")
    assert allowed.hosts == {("xn--bcher-kva.example", None), ("::1", 8080), ("host", 80)}
