"""The commands `ovsam evaluate` and `ovsam compare`; what they do is imported only when one of them runs."""

import argparse
import logging
import sys
from pathlib import Path
from typing import TypeAlias

from service.client.errors import ClientError
from service.evaluation.panel import KINDS, Baselines, Comparison
from service.settings import Settings

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"  # noqa: SLF001 - it has no public name


def register(commands: Commands, *, baselines: Baselines) -> None:
    """Add both to the console command; `baselines` runs a model repository's graphs."""
    evaluation = _command(commands, "evaluate", "measure a running service on annotated pictures")
    evaluation.add_argument("--annotations", type=Path, required=True, help="file in COCO's or LVIS' format")
    evaluation.add_argument("--images", type=Path, required=True, metavar="DIR", help="folder of its pictures")
    evaluation.add_argument(
        "--url", help="the service, or a model repository's folder (default: this machine, at OVSAM_PORT)"
    )
    evaluation.add_argument(
        "--prompt",
        default="paper-point",
        help="paper-point (centre of the box), paper-box, point (inside the object) or points:N (N - 1 corrections)",
    )
    evaluation.add_argument("--vocabulary", help="stored names to choose from (default: the file's classes)")
    evaluation.add_argument("--split", help="only base,novel (COCO) or rare,common,frequent (LVIS) classes")
    evaluation.add_argument("--apart", metavar="CLASSES", help="classes measured apart from the others")
    evaluation.add_argument(
        "--detections",
        type=Path,
        help="COCO results whose boxes are prompts, for mask AP over the measured pictures "
        "(without --split and --limit: all of the file)",
    )
    evaluation.add_argument("--limit", type=_count, help="at most so many objects, evenly spread over the file")
    evaluation.add_argument("--jobs", type=_count, default=1, help="pictures at a time; 1 measures latency (default 1)")
    evaluation.add_argument("--resume", action="store_true", help="go on with the run that ended in the same folder")
    evaluation.add_argument("--out", type=Path, default=Path("evaluation"), help="folder of the report")
    evaluation.add_argument(
        "--recogniser",
        metavar="KINDS",
        help="all, or some of ovsam,image-crop,feature-crop: compare their names over the same masks; "
        "runs the graphs of --url, or of --model-repository where --url is a running service",
    )
    evaluation.set_defaults(run=lambda options, settings: _evaluate(options, settings, baselines))

    comparison = _command(commands, "compare", "gate a roll-out: do two services or models answer alike?")
    for name in ("A", "B"):
        comparison.add_argument(name.lower(), metavar=name, help="URL of a service, or a model repository's folder")
    comparison.add_argument("--images", type=Path, metavar="DIR", help="pictures (default: 8 generated ones)")
    comparison.add_argument("--grid", type=_count, default=3, help="clicks and boxes along each side (default 3)")
    comparison.add_argument("--vocabulary", help="names to choose from (default: the service's)")
    comparison.add_argument("--limit", type=_count, default=100, help="at most so many pictures (default 100)")
    comparison.add_argument("--min-iou", type=float, default=0.99, help="least mean mask IoU (default 0.99)")
    comparison.add_argument("--min-agreement", type=float, default=0.99, help="least share of equal labels (0.99)")
    comparison.add_argument("--out", type=Path, default=Path("comparison"), help="folder of the report")
    comparison.set_defaults(run=_compare)


def _command(commands: Commands, name: str, summary: str) -> argparse.ArgumentParser:
    return commands.add_parser(name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.")


def _evaluate(options: argparse.Namespace, settings: Settings, baselines: Baselines) -> int:
    from service.evaluation.dataset import InvalidDataSet  # noqa: PLC0415 - serving never loads it
    from service.evaluation.evaluate import evaluate  # noqa: PLC0415
    from service.evaluation.server import NoServer, check_target, served  # noqa: PLC0415

    _quiet()
    try:
        target = options.url or f"http://{settings.host}:{settings.port}"
        check_target(target)
        comparison = _comparison(options, settings, baselines) if options.recogniser else None
        with served(target) as url:
            return evaluate(options, url=url, comparison=comparison)
    except (ClientError, InvalidDataSet, NoServer) as error:
        sys.stderr.write(f"ovsam: {error}\n")
        return 2


def _comparison(options: argparse.Namespace, settings: Settings, baselines: Baselines) -> Comparison:
    """Whose graphs to run: a service shows none of its own, so for one they are those of the settings' folder."""
    from service.evaluation.dataset import InvalidDataSet  # noqa: PLC0415 - serving never loads it

    chosen = KINDS if options.recogniser == "all" else tuple(kind.strip() for kind in options.recogniser.split(","))
    unknown = set(chosen) - set(KINDS)
    if unknown:
        raise InvalidDataSet(f"--recogniser is all, or some of {', '.join(KINDS)}, not {', '.join(unknown)}")
    own = options.url is not None and (Path(options.url) / "manifest.json").is_file()
    repository = Path(options.url) if own else settings.model_repository
    opener = baselines(settings)
    missing = set(chosen) - set(opener.kinds(repository))
    if missing and options.recogniser != "all":
        raise InvalidDataSet(f"the graphs of {repository} have nothing that {', '.join(missing)} could read")
    return Comparison(opener, repository, [kind for kind in chosen if kind not in missing])


def _compare(options: argparse.Namespace, _: Settings) -> int:
    from service.evaluation.compare import NoServer, compare  # noqa: PLC0415 - serving never loads it

    _quiet()
    try:
        return compare(options)
    except (ClientError, NoServer) as error:
        sys.stderr.write(f"ovsam: {error}\n")
        return 2


def _quiet() -> None:
    logging.getLogger("httpx").setLevel(logging.WARNING)  # its line for each request would tear the progress bar


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number
