"""Writes figures.json: what the published package `lvis` says of the crafted cases.

It needs a NumPy older than 1.24 and brings a second OpenCV, so it has an environment of its own:

    python3.11 -m venv build/lvis && build/lvis/bin/pip install lvis==0.5.3 'numpy<1.24' 'opencv-python<4.11'
    build/lvis/bin/python -m tests.lvis.record
"""

import json
import tempfile
from pathlib import Path

from lvis import LVISEval  # type: ignore[import-not-found]  # see above

from tests.lvis.cases import COUNT, case

FIGURES = Path(__file__).with_name("figures.json")


def main() -> None:
    """Evaluate every case."""
    recorded = []
    for number in range(COUNT):
        document, results = case(number)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "annotations.json"
            path.write_text(json.dumps(document))
            judge = LVISEval(str(path), results, "segm")
        judge.run()
        recorded.append({name: float(value) for name, value in judge.results.items() if name.startswith("AP")})
    FIGURES.write_text(json.dumps(recorded, indent=1) + "\n")


if __name__ == "__main__":
    main()
