"""From a loaded network to a published model repository: export, gate, describe, and only then take its place."""

import shutil
from pathlib import Path
from typing import Literal

from tqdm import tqdm

from export.graphs import graph_specs
from export.network.ovsam import OpenVocabularySam
from export.onnx_export import to_float16, write_graph
from export.parity import Figure, compare_graph, network_outputs, require_parity
from export.repository import WINDOW_SIDES, ModelFolder, published_whole, variant_manifest, write_config, write_manifest
from export.tensorrt_build import write_gpu_configs
from export.tokenizer import build_tokenizer

Precision = Literal["float32", "float16"]
_THREADS = 2


def publish(
    network: OpenVocabularySam, target: Path, *, precision: Precision, vocabularies: Path, default_vocabulary: str
) -> list[Figure]:
    """Write the repository of `network` to `target` and return the gate's figures; a DriftError leaves `target` alone.

    `vocabularies` holds the name lists (*.json) to ship; their text embeddings are made by `export.vocabularies`.
    """
    specs = graph_specs(network)
    figures: list[Figure] = []
    with published_whole(target) as folder, tqdm(total=len(specs) * 2, unit="step", desc="export") as bar:
        expected = {}
        for spec in specs:
            bar.set_postfix_str(f"{spec.name}: network")
            expected[spec.name] = network_outputs(spec)
            bar.update()
        if precision == "float16":
            to_float16(network)
        for spec in specs:
            bar.set_postfix_str(f"{spec.name}: graph")
            model = ModelFolder(folder / spec.name, spec.max_batch_size, threads=_THREADS, free_sides=WINDOW_SIDES)
            write_graph(spec, model.graph)
            write_config(model)
            figures += compare_graph(spec, model.graph, expected=expected[spec.name], precision=precision)
            bar.update()
        require_parity(figures)
        texts = folder / "text_encoder"
        build_tokenizer(network.variant.text).save(str(texts / "tokenizer.json"), pretty=False)
        copy_vocabularies(vocabularies, texts / "vocabularies")
        manifest = variant_manifest(network.variant, precision=precision, vocabulary=default_vocabulary)
        (folder / "README.md").write_text(_model_card(manifest), encoding="utf-8")
        write_manifest(folder, manifest)
        write_gpu_configs(folder)
    return figures


def copy_vocabularies(source: Path, target: Path) -> None:
    """Copy the name lists, without embeddings: those belong to another text encoder."""
    target.mkdir(parents=True, exist_ok=True)
    for path in sorted(source.glob("*.json")):
        shutil.copy(path, target / path.name)


def _model_card(manifest: dict[str, object]) -> str:
    return (
        f"# {manifest['variant']}, {manifest['precision']}\n\n"
        "Open-Vocabulary SAM (Yuan et al., ECCV 2024), exported from the authors' published checkpoints.\n"
        f"Licence of the weights: {manifest['licence']}.\n"
        "The graphs follow export/README.md; digests of all files are in manifest.json.\n"
    )
