"""A gateway, a name server that rebinds and two web servers, in a network of their own. Run by test_rebinding.py.

`unshare --map-root-user --mount --net python -m tests.end_to_end.rebinding FOLDER` prints, as JSON, what became of each
fetch. The network has one "public" address, on its loopback interface, and the system's resolver asks our name server:
everything between a user's URL and the socket is what production has.
"""

import json
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx

from tests.end_to_end.gateway import SAMPLES, running_gateway
from tests.name_server import NameServer

PUBLIC, INSIDE = "93.184.215.14", "127.0.0.1"
HOST, PORT = "pictures.example.org", 8080
_PICTURE = (SAMPLES / "coffee.jpg").read_bytes()


def furnish(folder: Path) -> None:
    """Give this namespace its addresses and its resolver's configuration."""
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    subprocess.run(["ip", "address", "add", f"{PUBLIC}/32", "dev", "lo"], check=True)
    for name, text in (("resolv.conf", f"nameserver {INSIDE}\n"), ("nsswitch.conf", "hosts: files dns\n")):
        (folder / name).write_text(text)
        subprocess.run(["mount", "--bind", folder / name, f"/etc/{name}"], check=True)


@contextmanager
def site(address: str) -> Iterator[list[str]]:
    """A web server with a picture; gives the paths that it was asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(302 if self.path == "/moved" else 200)
            self.send_header("location", f"http://{HOST}:{PORT}/new-place")
            self.send_header("content-length", str(len(_PICTURE)))
            self.end_headers()
            self.wfile.write(_PICTURE)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer((address, PORT), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield asked
        finally:
            server.shutdown()
            thread.join()


def main(folder: Path) -> None:
    """Fetch with the name server saying one thing, then another."""
    furnish(folder)
    names = NameServer()
    with (
        names.serving(INSIDE, 53),
        site(PUBLIC) as public,
        site(INSIDE) as inside,
        running_gateway(folder, fetch_allow=f"{HOST}:{PORT}") as gateway,
        gateway.client() as http,
    ):

        def upload(url: str) -> httpx.Response:
            return http.post("/v1/images", json={"url": url})

        def turn(path: str, *answers: str, ask: Callable[[str], httpx.Response] = upload) -> dict[str, Any]:
            for record in (names.given, public, inside):
                record.clear()
            names.answers = list(answers)
            status = ask(f"http://{HOST}:{PORT}{path}").status_code
            return {"status": status, "names": list(names.given), "public": list(public), "inside": list(inside)}

        turns = {
            "careless": turn("/picture", PUBLIC, INSIDE, ask=_judge_and_get),
            "rebound between judging and calling": turn("/picture", PUBLIC, INSIDE),
            "rebound between two fetches": turn("/picture", INSIDE),
            "rebound between a redirect and its target": turn("/moved", PUBLIC, INSIDE),
            "bound well": turn("/picture", PUBLIC),
        }
    print(json.dumps(turns))


def _judge_and_get(url: str) -> httpx.Response:
    """What a careless service does: looks at the name's address, and lets its client look again."""
    assert socket.getaddrinfo(HOST, PORT, type=socket.SOCK_STREAM)[0][4][0] == PUBLIC
    return httpx.get(url, trust_env=False)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
