"""The console command `ovsam`: serve, and try the model on a picture without a server."""

import argparse
import asyncio
import json
import logging
import os
import signal
import sys
import time
from collections.abc import Iterable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from socket import socket
from types import FrameType

import cv2
import numpy as np
import uvicorn
from fastapi import FastAPI
from pydantic import ValidationError

from service import folder_commands, key_commands
from service.adapters.keys import InvalidKeys, read_keys
from service.adapters.manifest import InvalidRepository, read_repository
from service.app import build_app, open_services
from service.core.access import PUBLIC
from service.core.errors import ServiceError
from service.core.images import decode_image, digest_of
from service.core.requests import Classify, PromptRequest, SegmentReply, SegmentRequest
from service.core.types import BoolArray, Box, Point, Prompt, UInt8Array
from service.evaluation import commands as evaluation_commands
from service.evaluation.panel import Opener
from service.logs import set_up_logs
from service.settings import Settings
from service.settings_report import complaints, misspelt, report
from service.telemetry import PrometheusObserver
from service.transports.http_protocol import BoundedProtocol
from service.transports.services import Services

_KEEP_ALIVE_SECONDS = 75  # longer than proxies and clients keep theirs: who closes first can hit a request on its way
_log = logging.getLogger(__name__)
_COLOURS = ((66, 133, 244), (234, 67, 53), (52, 168, 83), (251, 188, 5), (171, 71, 188), (0, 172, 193))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit status is 0 when it did what was asked."""
    options = _parser().parse_args(arguments)
    try:
        settings = _settings(options)
        set_up_logs(settings.log_level, settings.log_format)
        return int(options.run(options, settings))
    except ValidationError as error:
        return _complain(complaints(error))
    except (InvalidRepository, InvalidKeys, ServiceError, OSError) as error:
        print(f"ovsam: {error}", file=sys.stderr)
    return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ovsam",
        description="Open-Vocabulary SAM: click or box an object, get its mask and its name.",
        epilog="Settings are environment variables with the prefix OVSAM_; options win over them.",
    )
    parser.add_argument("--model-repository", type=Path, help="folder of the model (default: the bundled nano)")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    serve = commands.add_parser("serve", help="serve HTTP until a signal comes")
    serve.add_argument("--host", help="address to listen on (default 127.0.0.1)")
    serve.add_argument("--port", type=int, help="port (default 8000; 0 takes a free one)")
    serve.set_defaults(run=_serve)

    segment = commands.add_parser("segment", help="segment objects of one picture, without a server")
    segment.add_argument("image", type=Path, metavar="IMAGE")
    segment.add_argument("--point", action="append", default=[], metavar="X,Y", help="a click, in pixels; repeatable")
    segment.add_argument("--box", action="append", default=[], metavar="X1,Y1,X2,Y2", help="a box; repeatable")
    segment.add_argument("--names", help='own words to choose from, "cat,dog" (default: the vocabulary)')
    segment.add_argument("--vocabulary", help="a vocabulary to choose from (see `ovsam vocabularies`)")
    segment.add_argument("--out", type=Path, help="picture with the masks drawn on it")
    segment.add_argument("--json", action="store_true", help="print JSON instead of a table")
    segment.set_defaults(run=lambda options, settings: asyncio.run(_segment(options, settings)))

    folder_commands.register(commands)
    key_commands.register(commands)
    evaluation_commands.register(commands, baselines=_baselines)
    config = commands.add_parser("config", help="print the settings in force, secrets masked")
    config.set_defaults(run=_config)
    models = commands.add_parser("models", help="show the model and its measured quality")
    models.set_defaults(run=_models)
    vocabularies = commands.add_parser("vocabularies", help="list the vocabularies")
    vocabularies.set_defaults(run=lambda options, settings: asyncio.run(_vocabularies(options, settings)))
    return parser


def _baselines(settings: Settings) -> Opener:
    """What `ovsam evaluate --recogniser` runs; onnx, which it cuts graphs with, comes with the development tools."""
    try:
        from service.baselines.opening import Baselines  # noqa: PLC0415 - serving never loads it
    except ModuleNotFoundError as error:
        raise SystemExit(f"ovsam: --recogniser needs the package {error.name}: pip install {error.name}") from error
    return Baselines(settings)


def _settings(options: argparse.Namespace) -> Settings:
    chosen = {name: getattr(options, name, None) for name in ("model_repository", "host", "port")}
    return Settings(**{name: value for name, value in chosen.items() if value is not None})


def _config(_: argparse.Namespace, settings: Settings) -> int:
    for line in report(settings):
        print(line)
    return _complain(misspelt(os.environ))


def _complain(sentences: Iterable[str]) -> int:
    """Tell what is wrong with the settings; the exit status, 0 when nothing is."""
    told = [print(f"ovsam: {sentence}", file=sys.stderr) for sentence in sentences]
    return 2 if told else 0


def _serve(_: argparse.Namespace, settings: Settings) -> int:
    if status := _complain(misspelt(os.environ)):
        return status
    read_repository(settings.model_repository)  # a wrong folder or file is told before anything starts
    if settings.api_keys_file:
        read_keys(settings.api_keys_file)
    app = build_app(settings)
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        http=BoundedProtocol,
        ssl_certfile=settings.tls_cert,
        ssl_keyfile=settings.tls_key,
        log_config=None,  # its lines come out like ours
        log_level="warning",
        access_log=False,
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=int(settings.request_seconds) + 5,
    )
    server = _Server(config, app=app, settings=settings)
    server.run()
    return 0 if server.started else 1


class _Server(uvicorn.Server):
    """Says where the page is once the model has answered its probe, and drains before it ends."""

    def __init__(self, config: uvicorn.Config, *, app: FastAPI, settings: Settings) -> None:
        super().__init__(config)
        self._state = app.state
        self._drain_seconds = settings.drain_seconds
        self._greets = settings.log_format == "text"

    async def startup(self, sockets: list[socket] | None = None) -> None:
        """Start, then print the page's address and a call to paste; where machines read along, log it."""
        await super().startup(sockets)
        if not self.started:
            return
        host, port = self.servers[0].sockets[0].getsockname()[:2]
        address = f"{'https' if self.config.is_ssl else 'http'}://{host}:{port}"
        if not self._greets:
            _log.info("page %s/", address)
            return
        print(f"\n  page  {address}/\n  docs  {address}/docs\n\n  {_curl(address)}\n", flush=True)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002 - uvicorn's signature
        """At the first signal readiness turns false and serving goes on for a while; a second one ends it at once.

        Not uvicorn's own: that kills the process by the signal in the end, which looks like a crash to a supervisor.
        """
        services: Services | None = getattr(self._state, "services", None)
        if services is None or services.draining.is_set() or self._drain_seconds == 0:
            self.force_exit = self.should_exit
            self.should_exit = True
            return
        services.draining.set()
        signal.signal(signal.SIGALRM, lambda *_: setattr(self, "should_exit", True))
        signal.setitimer(signal.ITIMER_REAL, self._drain_seconds)


def _curl(address: str) -> str:
    image = Path(__file__).parent / "transports" / "web" / "samples" / "coffee.jpg"
    request = '{"prompts":[{"points":[{"x":340,"y":200}]}]}'
    return f"curl -F image=@{image} -F 'request={request}' {address}/v1/segment"


async def _segment(options: argparse.Namespace, settings: Settings) -> int:
    content = options.image.read_bytes()
    prompts = _prompts(options)
    names = tuple(name.strip() for name in options.names.split(",")) if options.names else None
    request = SegmentRequest(
        tenant=PUBLIC,
        digest=digest_of(content),
        content=content,
        prompts=prompts,
        classify=Classify(vocabulary=options.vocabulary, names=names),
        render=lambda mask: mask,
    )
    async with AsyncExitStack() as stack:
        ready = await open_services(settings, PrometheusObserver(), stack)
        reply = await ready.segmenter.segment(request, deadline=time.monotonic() + 600)
    _print(reply, as_json=options.json)
    if options.out:
        image = decode_image(content, max_pixels=int(settings.max_megapixels * 1_000_000))
        if not cv2.imwrite(str(options.out), draw_masks(image, [s.mask for s in reply.segments])[:, :, ::-1]):
            raise OSError(f"{options.out} cannot be written")
    return 0


def _prompts(options: argparse.Namespace) -> list[PromptRequest]:
    """Points together are one object; each box is one of its own."""
    points = tuple(Point(x, y) for x, y in (_numbers(text, 2, "--point") for text in options.point))
    prompts = [Prompt(points=points)] if points else []
    prompts += [Prompt(box=Box(*_numbers(text, 4, "--box"))) for text in options.box]
    if not prompts:
        raise SystemExit("ovsam: give at least one --point or --box")
    return [PromptRequest(id=str(index), prompt=prompt) for index, prompt in enumerate(prompts)]


def _numbers(text: str, count: int, option: str) -> list[float]:
    try:
        numbers = [float(number) for number in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) != count:
        raise SystemExit(f"ovsam: {option} takes {count} numbers with commas, not {text!r}")
    return numbers


def _print(reply: SegmentReply, *, as_json: bool) -> None:
    if as_json:
        rows = [
            {
                "id": segment.id,
                "bbox": segment.box,
                "area": segment.area,
                "stability": round(segment.stability, 4),
                "classes": [{"name": name, "score": score} for name, score in segment.classes or ()],
                "error": segment.error.message if segment.error else None,
            }
            for segment in reply.segments
        ]
        print(json.dumps(rows))
        return
    for segment in reply.segments:
        if segment.error:
            print(f"{segment.id}: {segment.error.message}")
            continue
        names = ", ".join(f"{name} {score:.2f}" for name, score in segment.classes or ()) or "nothing found"
        print(f"{segment.id}: {names}  ({segment.area} pixels, stability {segment.stability:.2f})")


def draw_masks(image: UInt8Array, masks: "Sequence[object]") -> UInt8Array:
    """The picture [H, W, 3] with each mask tinted and outlined in a colour of its own."""
    drawn = image.copy()
    for index, mask in enumerate(masks):
        if not isinstance(mask, np.ndarray):
            continue
        colour = np.array(_COLOURS[index % len(_COLOURS)])
        inside: BoolArray = mask
        drawn[inside] = (0.5 * drawn[inside] + 0.5 * colour).astype(np.uint8)
        outlines, _ = cv2.findContours(inside.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(drawn, outlines, -1, colour.tolist(), max(1, max(image.shape) // 500))
    return drawn


def _models(_: argparse.Namespace, settings: Settings) -> int:
    spec = read_repository(settings.model_repository).spec
    print(f"{spec.variant}  revision {spec.revision[:16]}  {spec.precision}  {spec.input_size} px  {spec.licence}")
    for name, value in spec.quality.items():
        print(f"  {name}: {value}")
    return 0


async def _vocabularies(_: argparse.Namespace, settings: Settings) -> int:
    async with AsyncExitStack() as stack:
        ready = await open_services(settings, PrometheusObserver(), stack)
        for name in await ready.vocabularies.names(PUBLIC):
            vocabulary = await ready.vocabularies.find(PUBLIC, name)
            default = "  (default)" if name == ready.vocabularies.default else ""
            print(f"{name:16} {len(vocabulary.classes):6} names  {vocabulary.title}{default}")
    return 0
