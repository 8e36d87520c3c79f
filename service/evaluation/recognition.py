"""The model's own names against those of the paper's naive baselines, over the very masks that were measured."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from service.client.options import SegmentOptions
from service.client.parallel import in_threads
from service.evaluation.dataset import InvalidDataSet, Picture
from service.evaluation.metrics import percentiles_ms
from service.evaluation.panel import OWN, Comparison, Panel
from service.evaluation.splits import plain_name
from service.evaluation.summary import Case, Figures, group_figures


@dataclass(frozen=True, slots=True)
class _Trial:
    """What one recogniser said to each object, by its id."""

    names: dict[int, tuple[str, ...]]
    seconds: list[float]


def recogniser_figures(
    cases: Sequence[Case], comparison: Comparison, *, options: SegmentOptions, revision: str, apart: Collection[str]
) -> Figures:
    """For each recogniser: top-1 / top-5 by group, milliseconds and GFLOP for a prompt; and the GFLOP of an image.

    Raises InvalidDataSet when the repository is not that of the service which was measured.
    """
    panel = comparison.opener.open(comparison.repository, comparison.kinds, options)
    if panel.revision != revision:
        folder = comparison.repository
        raise InvalidDataSet(f"{folder} holds another model than the service's; --model-repository names its folder")
    trials = {kind: _Trial({}, []) for kind in comparison.kinds}
    pictures: dict[int, list[Case]] = {}
    for case in cases:
        pictures.setdefault(case.picture.id, []).append(case)
    work = _recognise(panel, trials)
    for _, failure in in_threads(work, pictures.values(), jobs=1, title="recognise"):
        if failure is not None:
            raise failure
    return {
        "image_gflop": panel.image_flops() / 1e9,
        "rows": {
            kind: {
                "groups": _accuracies(cases, trial, apart=apart, own=kind == OWN),
                "ms": percentiles_ms(trial.seconds),
                "gflop": panel.prompt_flops(kind) / 1e9,
            }
            for kind, trial in trials.items()
        },
    }


def _recognise(panel: Panel, trials: Mapping[str, _Trial]) -> Callable[[list[Case]], None]:
    """Work on one picture; an empty mask has no name whoever is asked."""

    def work(cases: list[Case]) -> None:
        picture: Picture = cases[0].picture
        view = panel.view(picture.path.read_bytes())
        for case in cases:
            mask = case.record.mask()
            for kind, trial in trials.items():
                trial.names[case.target.id] = ()
                if mask is not None and mask.any():
                    names, seconds = panel.recognise(kind, view, mask)
                    trial.names[case.target.id] = tuple(plain_name(name) for name in names)
                    trial.seconds.append(seconds)

    return work


def _accuracies(cases: Sequence[Case], trial: _Trial, *, apart: Collection[str], own: bool) -> Figures:
    """By group; the model's own names are the service's, the run of its graphs is there for time and FLOPs."""
    named = cases if own else [_renamed(case, trial.names[case.target.id]) for case in cases]
    groups = group_figures(named, apart=apart)
    return {name: {key: figures[key] for key in ("objects", "top1", "top5")} for name, figures in groups.items()}


def _renamed(case: Case, names: tuple[str, ...]) -> Case:
    last = replace(case.record.last, names=names)
    return replace(case, record=replace(case.record, steps=(*case.record.steps[:-1], last)))
