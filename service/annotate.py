"""Label a folder of images through the service, as a COCO instances file."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from service.client.answers import Answer, SegmentedObject
from service.client.api import Client
from service.client.images import find_images
from service.client.options import EverythingOptions
from service.client.parallel import Failure, in_threads


@dataclass
class CocoFile:
    """A COCO instances file in the making; category ids follow the order of `names`, then of appearance."""

    names: dict[str, int] = field(default_factory=dict)
    images: list[dict[str, Any]] = field(default_factory=list)
    annotations: list[dict[str, Any]] = field(default_factory=list)
    description: str = ""

    def add(self, file_name: str, answer: Answer) -> None:
        """Take in one image and its objects that have a name."""
        height, width = answer.size
        self.description = f"{answer.model}, revision {answer.revision}"
        self.images.append({"id": len(self.images) + 1, "file_name": file_name, "width": width, "height": height})
        for found in answer:
            if found.classes and found.box is not None:
                self.annotations.append(self._annotation(found))

    def fields(self) -> dict[str, Any]:
        """The whole file."""
        return {
            "info": {"description": self.description},
            "images": self.images,
            "annotations": self.annotations,
            "categories": [{"id": number, "name": name} for name, number in self.names.items()],
        }

    def _annotation(self, found: SegmentedObject) -> dict[str, Any]:
        if found.rle is None or found.box is None:
            raise ValueError("an annotation needs a mask")
        name, score = found.classes[0]
        box = found.box
        return {
            "id": len(self.annotations) + 1,
            "image_id": len(self.images),
            "category_id": self.names.setdefault(name, len(self.names) + 1),
            "segmentation": {"size": list(found.rle.size), "counts": found.rle.counts},
            "area": found.area,
            "bbox": [box.x1, box.y1, box.x2 - box.x1, box.y2 - box.y1],
            "iscrowd": 0,
            "score": score,
        }


def annotate(
    client: Client, folder: Path, *, options: EverythingOptions, jobs: int = 2
) -> tuple[CocoFile, dict[Path, Failure]]:
    """Look for everything in every image of a folder; also tells the images that failed."""
    coco = CocoFile({name: number for number, name in enumerate(options.get("names", ()), start=1)})
    failures: dict[Path, Failure] = {}
    paths = find_images(folder)
    found = in_threads(lambda path: client.segment_everything(path, **options), paths, jobs=jobs, title="annotate")
    for path, answer in found:
        if isinstance(answer, Answer):
            coco.add(path.relative_to(folder).as_posix(), answer)
        else:
            failures[path] = answer
    return coco, failures
