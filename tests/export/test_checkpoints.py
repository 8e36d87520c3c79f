"""Loading the official files: complete, strict, safe, and with an error that helps."""

import pickle
import warnings
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from export.checkpoints import (
    SOURCES,
    CheckpointError,
    CheckpointFile,
    fetch_list,
    load_network,
    official_key,
    read_checkpoint,
)
from export.network.ovsam import OpenVocabularySam
from tests.export.tiny_network import TINY, tiny_network

Files = dict[CheckpointFile, dict[str, Tensor]]


@pytest.fixture
def network() -> OpenVocabularySam:
    """The network the files are taken from."""
    return tiny_network(seed=1)


@pytest.fixture
def files(network: OpenVocabularySam) -> Files:
    """Its tensors under the official keys, with what else the official files hold."""
    files: Files = {file: {} for file in CheckpointFile}
    for network_key, tensor in network.state_dict().items():
        file, key = official_key(network_key)
        files[file][key] = tensor.clone()
    files[CheckpointFile.CLIP] |= {"logit_scale": torch.tensor(4.6), "input_resolution": torch.tensor(384)}
    files[CheckpointFile.CLIP2SAM]["mask_decoder.label_mlp.layers.0.weight"] = torch.zeros(3, 3)
    files[CheckpointFile.CLIP2SAM]["backbone.visual.conv1.weight"] = torch.zeros(3)
    files[CheckpointFile.SAM]["image_encoder.pos_embed"] = torch.zeros(3)
    return files


def test_every_tensor_comes_back_from_the_files(network: OpenVocabularySam, files: Files) -> None:
    loaded = load_network(TINY, files).state_dict()
    for key, tensor in network.state_dict().items():
        assert torch.equal(loaded[key], tensor), key


def test_half_precision_weights_are_used_as_float32(files: Files) -> None:
    files[CheckpointFile.CLIP]["text_projection"] = files[CheckpointFile.CLIP]["text_projection"].half()
    assert load_network(TINY, files).text_encoder.text_projection.dtype == torch.float32


def test_missing_extra_and_misshaped_keys_are_all_named(files: Files) -> None:
    neck = files[CheckpointFile.SAM2CLIP]
    del neck["neck_student.pos_embed"]
    neck["neck_student.surplus"] = torch.zeros(1)
    neck["neck_student.blocks.0.norm1.weight"] = torch.zeros(7)
    with pytest.raises(CheckpointError) as caught:
        load_network(TINY, files)
    message = str(caught.value)
    assert "missing (1): neck_student.pos_embed" in message
    assert "unknown (1): neck_student.surplus" in message
    assert "neck_student.blocks.0.norm1.weight (7,), wanted (16,)" in message


@pytest.mark.parametrize("given", list(CheckpointFile))
@pytest.mark.parametrize("meant", list(CheckpointFile))
def test_a_file_in_the_wrong_place_is_recognised(files: Files, given: CheckpointFile, meant: CheckpointFile) -> None:
    if given is meant:
        return
    files[given] = files[meant]
    with pytest.raises(CheckpointError, match=f"was it meant for --{meant}"):
        load_network(TINY, files)


@pytest.mark.parametrize("wrap", [lambda state: state, lambda state: {"state_dict": state, "meta": {"epoch": 3}}])
def test_a_bare_and_a_wrapped_state_dict_are_read_alike(tmp_path: Path, wrap: object) -> None:
    assert callable(wrap)
    torch.save(wrap({"a.b": torch.ones(2)}), tmp_path / "file.pth")
    assert read_checkpoint(tmp_path / "file.pth")["a.b"].tolist() == [1, 1]


def test_the_prefix_of_distributed_training_is_dropped(tmp_path: Path) -> None:
    torch.save({"state_dict": {"module.visual.x": torch.ones(1)}}, tmp_path / "file.pth")
    assert list(read_checkpoint(tmp_path / "file.pth")) == ["visual.x"]


def test_a_torchscript_archive_is_read(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        archive = torch.jit.trace(nn.Sequential(nn.Linear(2, 3)), torch.zeros(1, 2))  # type: ignore[no-untyped-call]
        torch.jit.save(archive, tmp_path / "RN50x16.pt")
    assert set(read_checkpoint(tmp_path / "RN50x16.pt")) == {"0.weight", "0.bias"}


class _Payload:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("a checkpoint has run code",)


def test_a_file_that_would_run_code_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"state_dict": _Payload()}, tmp_path / "evil.pth")
    (tmp_path / "raw.pth").write_bytes(pickle.dumps(_Payload()))
    for name in ("evil.pth", "raw.pth"):
        with pytest.raises(CheckpointError, match=name):
            read_checkpoint(tmp_path / name)
    assert "has run code" not in capsys.readouterr().out


def test_a_file_that_is_not_there_points_to_the_list(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="fetch-list"):
        read_checkpoint(tmp_path / "none.pth")


def test_the_list_names_each_file_with_size_and_licence() -> None:
    for source in SOURCES.values():
        assert source.name in fetch_list()
        assert source.licence in fetch_list()
