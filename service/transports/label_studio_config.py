"""What a Label Studio labelling config asks for: which image, which kinds of regions, and which words mean a label."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from xml.etree.ElementTree import Element, ParseError

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring

from service.core.errors import InvalidRequest

SHAPES = ("brush", "polygon", "rectangle")


@dataclass(frozen=True, slots=True)
class Control:
    """A control that takes answers: its kind (also the type of its regions), its name, and the labels it offers.

    A `<Brush>` has no labels of its own: they are those of the `<Labels>` that `labels_from` names.
    """

    kind: str
    name: str
    labels: tuple[str, ...]
    labels_from: str = ""

    @property
    def shape(self) -> str:
        """The geometry that it shows: one of SHAPES."""
        return self.kind.removesuffix("labels")


@dataclass(frozen=True, slots=True)
class LabelConfig:
    """One image of a config: its name, its field in a task's data, its controls, and the label of each word."""

    image: str
    field: str
    controls: tuple[Control, ...]
    words: Mapping[str, str]


def parse_config(text: str, *, image: str | None = None, prompting: Collection[str] = ()) -> LabelConfig:
    """Read a config for the image named, or for its first one that can be answered; raises InvalidRequest.

    `prompting` names the controls that the request's prompts were drawn with.
    """
    try:
        root = fromstring(text, forbid_dtd=True)
    except (ParseError, DefusedXmlException, ValueError) as error:
        raise InvalidRequest("the labelling config is not readable XML", pointer="/label_config") from error
    images = [tag for tag in _tags(root, "image") if image in (None, tag.get("name"))]
    for tag in images:
        controls = _controls(root, image=tag.get("name", ""), prompting=prompting)
        if controls:
            words = _words(root, controls)
            return LabelConfig(tag.get("name", ""), tag.get("value", "").lstrip("$"), tuple(controls), words)
    raise InvalidRequest(
        "the labelling config has no BrushLabels, PolygonLabels or RectangleLabels with labels for an Image,"
        " and no Brush, Polygon or Rectangle beside Labels",
        pointer="/label_config",
    )


def _controls(root: Element, *, image: str, prompting: Collection[str]) -> list[Control]:
    """The controls that take answers.

    A smart control is what people prompt with; it takes answers too when it shares labels of its own with a plain
    control, and not when they only stand for "whatever it is". Smart controls alone take all answers.
    """
    plain, smart = [], []
    for control, tag in _offered(root, image):
        if _is_true(tag, "smart") or _is_true(tag, "smartOnly") or control.name in prompting:
            smart.append((control, _is_true(tag, "smartOnly") or bool(control.labels_from)))
        else:
            plain.append(control)
    known = {label for control in plain for label in control.labels}
    shared = [control for control, only in smart if not only and known.intersection(control.labels)]
    return plain + shared if plain else [control for control, _ in smart]


def _offered(root: Element, image: str) -> Iterator[tuple[Control, Element]]:
    """Every control for an image's regions with the labels that it offers: its own, or those of a `<Labels>` beside."""
    tags = [tag for tag in root.iter() if image in tag.get("toName", "").split(",")]
    beside = {tag.get("name", ""): _labels(tag) for tag in tags if tag.tag.lower() == "labels"}
    for tag in tags:
        kind, name = tag.tag.lower(), tag.get("name", "")
        if kind in SHAPES:
            for labels_from, labels in beside.items():
                if labels:
                    yield Control(kind, name, labels, labels_from), tag
        elif kind.removesuffix("labels") in SHAPES and _labels(tag):
            yield Control(kind, name, _labels(tag)), tag


def _labels(tag: Element) -> tuple[str, ...]:
    return tuple(filter(None, (label.get("value", "") for label in _tags(tag, "label"))))


def _words(root: Element, controls: Sequence[Control]) -> dict[str, str]:
    """Every word that the model may answer with, and the label it stands for (`predicted_values`, else the label)."""
    names = {control.labels_from or control.name for control in controls}
    words: dict[str, str] = {}
    plain = []
    for tag in (tag for tag in root.iter() if tag.get("name") in names):
        for label in _tags(tag, "label"):
            value = label.get("value", "")
            if not value.strip():
                continue
            predicted = [" ".join(word.split()) for word in label.get("predicted_values", "").split(",")]
            for word in filter(None, predicted):
                words.setdefault(word, value)
            plain.append(value)
    explained = set(words.values())
    for value in plain:
        if value not in explained:
            words.setdefault(" ".join(value.split()), value)
    return words


def _tags(root: Element, name: str) -> list[Element]:
    return [tag for tag in root.iter() if tag.tag.lower() == name]


def _is_true(tag: Element, name: str) -> bool:
    return tag.get(name, "").lower() == "true"
