"""The commands `ovsam annotate` and `ovsam prewarm`: a folder of images through a running service."""

import argparse
import json
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

from service.annotate import annotate
from service.client.api import Client
from service.client.errors import ClientError
from service.client.images import find_images
from service.client.options import EverythingOptions
from service.client.parallel import in_threads
from service.client.protocol import Upload
from service.settings import Settings

Run: TypeAlias = Callable[[Client, argparse.Namespace], int]
Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"  # noqa: SLF001 - it has no public name


def register(commands: Commands) -> None:
    """Add both to the console command."""
    annotation = _folder_command(
        commands, "annotate", run=_annotate, summary="label every object of a folder of images"
    )
    annotation.add_argument("--names", help='own words to choose from, "cat,dog" (default: the vocabulary)')
    annotation.add_argument("--vocabulary", help="a vocabulary to choose from (see `ovsam vocabularies`)")
    annotation.add_argument("--min-score", type=float, default=0.3, help="least probability of a name (default 0.3)")
    annotation.add_argument("--grid", type=int, default=16, help="clicks along the longer side (default 16)")
    annotation.add_argument("--min-stability", type=float, default=0.5, help="least stability of a mask (default 0.5)")
    annotation.add_argument("--format", choices=["coco"], default="coco", help="form of the file (default coco)")
    annotation.add_argument("--out", type=Path, default=Path("annotations.json"), help="default annotations.json")
    _folder_command(
        commands, "prewarm", run=_prewarm, summary="embed a folder of images, but for those embedded before"
    )


def _folder_command(commands: Commands, name: str, *, run: Run, summary: str) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.")
    parser.add_argument("folder", type=Path, metavar="DIR")
    parser.add_argument("--url", help="the service (default: this machine, at OVSAM_PORT)")
    parser.add_argument("--jobs", type=int, default=2, help="images under way at a time (default 2)")
    parser.set_defaults(run=lambda options, settings: _run(run, options, settings))
    return parser


def _run(run: Run, options: argparse.Namespace, settings: Settings) -> int:
    if not options.folder.is_dir():
        raise NotADirectoryError(f"{options.folder} is no folder")
    logging.getLogger("httpx").setLevel(logging.WARNING)  # its line for each request would tear the progress bar
    try:
        with Client(options.url or f"http://{settings.host}:{settings.port}", timeout=600.0) as client:
            client.vocabularies()  # a service that is not there is told once, not for each image
            return run(client, options)
    except ClientError as error:
        sys.stderr.write(f"ovsam: {error}\n")
        return 2


def _annotate(client: Client, options: argparse.Namespace) -> int:
    wanted = EverythingOptions(
        grid=options.grid, min_stability=options.min_stability, min_score=options.min_score, top_k=1
    )
    if options.names:
        wanted["names"] = [" ".join(name.split()) for name in options.names.split(",")]
    if options.vocabulary:
        wanted["vocabulary"] = options.vocabulary
    coco, failures = annotate(client, options.folder, options=wanted, jobs=options.jobs)
    partial = options.out.with_name(f"{options.out.name}.partial")
    partial.write_text(json.dumps(coco.fields()))
    partial.replace(options.out)
    sys.stdout.write(f"{options.out}: {len(coco.images)} images, {len(coco.annotations)} objects\n")
    return _tell_failures({path: str(error) for path, error in failures.items()})


def _prewarm(client: Client, options: argparse.Namespace) -> int:
    paths = find_images(options.folder)
    known, failures = 0, {}
    for path, result in in_threads(client.upload, paths, jobs=options.jobs, title="prewarm"):
        if isinstance(result, Upload):
            known += result.known
        else:
            failures[path] = str(result)
    embedded = len(paths) - known - len(failures)
    sys.stdout.write(f"{embedded} images embedded, {known} known before, {len(failures)} failed\n")
    return _tell_failures(failures)


def _tell_failures(failures: dict[Path, str]) -> int:
    for path, reason in failures.items():
        sys.stderr.write(f"{path}: {reason}\n")
    return 1 if failures else 0
