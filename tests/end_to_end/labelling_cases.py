"""What is asked of every interface alike: prompts on one photograph, in pixels that every one of them can say."""

from dataclasses import dataclass
from pathlib import Path

PICTURE = Path(__file__).parents[2] / "service" / "transports" / "web" / "samples" / "cat.jpg"
WIDTH, HEIGHT = 451, 300


@dataclass(frozen=True)
class Case:
    """Clicks (x, y, label) and a box of the cat or of a part of it."""

    points: tuple[tuple[int, int, int], ...] = ()
    box: tuple[int, int, int, int] | None = None


CASES = {
    "a click": Case(points=((220, 150, 1),)),
    "a click beside one to leave out": Case(points=((220, 150, 1), (430, 40, 0))),
    "a box": Case(box=(2, 2, 398, 298)),
}
