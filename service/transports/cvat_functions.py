"""The functions that CVAT finds where it looks for Nuclio's dashboard, in Nuclio's form."""

import json
from collections.abc import Sequence
from typing import Any

INTERACTOR, DETECTOR = "ovsam-interactor", "ovsam-detector"


def describe_functions(names: Sequence[str], *, port: int) -> dict[str, Any]:
    """All functions by name; `names` are the classes that the detector knows.

    Flags that are off are left out: CVAT takes any text for true, "false" too.
    """
    interactor = {
        "name": "Open-Vocabulary SAM",
        "type": "interactor",
        "version": "2",
        "spec": "[]",
        "min_pos_points": "1",
        "min_neg_points": "0",
        "startswith_box_optional": "true",
        "help_message": "Click the object or draw a box around it; more clicks refine the mask",
        "animated_gif": "",
    }
    labels = [{"id": index, "name": name, "type": "mask"} for index, name in enumerate(names)]
    detector = {
        "name": "Open-Vocabulary SAM: all objects",
        "type": "detector",
        "spec": json.dumps(labels),
    }
    return {
        INTERACTOR: _function(INTERACTOR, interactor, "Mask of the object that is clicked or boxed", port),
        DETECTOR: _function(DETECTOR, detector, "Masks and names of all objects", port),
    }


def _function(name: str, annotations: dict[str, str], description: str, port: int) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "namespace": "nuclio", "annotations": annotations},
        "spec": {"description": description, "handler": "ovsam"},
        "status": {"state": "ready", "httpPort": port},
    }
