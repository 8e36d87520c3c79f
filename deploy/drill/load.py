"""Callers as they should be: each click is sent again, to the next gateway, until it is answered."""

import http.client
import itertools
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from asking import PATIENCE, ask

SAMPLE = Path(__file__).resolve().parents[2] / "service" / "transports" / "web" / "samples" / "coffee.jpg"
CLICK = {"prompts": [{"points": [{"x": 340, "y": 200}]}], "classify": None, "output": {"mask": "none"}}


@dataclass
class Load:
    """Clicks without a pause on all gateways in turn; one that fails is sent again, to the next gateway."""

    ports: list[int]
    answered: int = 0
    retried: dict[str, int] = field(default_factory=dict)
    lost: list[str] = field(default_factory=list)
    _over: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def running(self, clients: int) -> Iterator[None]:
        """So many callers while the block runs."""
        threads = [threading.Thread(target=self._click_on, args=(number,)) for number in range(clients)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._over.set()
            for thread in threads:
                thread.join()

    def _click_on(self, number: int) -> None:
        for count in itertools.count():
            if self._over.is_set():
                return
            # what follows a JPEG's end is not seen, so this is the same picture and, for every cache, another image
            self._click(SAMPLE.read_bytes() + f"{number} {count // 50}".encode(), number + count)

    def _click(self, image: bytes, turn: int) -> None:
        """One object of one image, as a careful client asks: by digest, with the image when it is not known."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            try:
                port = self.ports[turn % len(self.ports)]
                status, answer = ask(port, "POST", "/v1/images", image)
                if status == 201:
                    body = json.dumps(CLICK | {"image": json.loads(answer)["image"]}).encode()
                    status, answer = ask(port, "POST", "/v1/segment", body)
                if status == 200 and json.loads(answer)["results"][0]["area"] > 0:
                    self.answered += 1
                    return
                self._note(json.loads(answer).get("code", str(status)))
            except (OSError, http.client.HTTPException) as error:
                self._note(type(error).__name__)
            turn += 1
            time.sleep(0.2)
        self.lost.append(f"a click was not answered within {PATIENCE:.0f} s")

    def _note(self, reason: str) -> None:
        self.retried[reason] = self.retried.get(reason, 0) + 1
