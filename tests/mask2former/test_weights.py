"""Files of weights: formats, variants of the names, and files that must be refused."""

from __future__ import annotations

import collections
import logging
import os
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from mask2former_oracle import TOY, TOY_SWIN, toy_network
from vidseg.errors import UsageError, WeightsError
from vidseg_trackers.mask2former.classes import class_set
from vidseg_trackers.mask2former.config import ARCHITECTURES, Mask2FormerConfig
from vidseg_trackers.mask2former.weights import load_network, network_from_state_dict, read_state_dict


@pytest.fixture(scope="module", params=[TOY, TOY_SWIN], ids=["resnet", "swin"])
def state(request: pytest.FixtureRequest) -> dict[str, torch.Tensor]:
    return toy_network(request.param).state_dict()


def arrays(state: dict[str, torch.Tensor]) -> dict[str, np.ndarray]:
    return {k: v.numpy().copy() for k, v in state.items()}


def write_pickle(path: Path, model: object, protocol: int = 4) -> Path:
    content = {"model": model, "__author__": "somebody"}
    path.write_bytes(pickle.dumps(content, protocol))
    return path


def same(got: dict[str, torch.Tensor], want: dict[str, torch.Tensor]) -> bool:
    return got.keys() == want.keys() and all(torch.equal(got[k], want[k]) for k in want)


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_detectron2_pickles(state, tmp_path: Path, protocol: int) -> None:
    path = write_pickle(tmp_path / "model.pkl", collections.OrderedDict(arrays(state)), protocol)
    assert same(read_state_dict(path), state)


def test_wrapped_files(state, tmp_path: Path) -> None:
    compiled = {f"_orig_mod.{k}": v for k, v in state.items()}
    torch.save({"model_state_dict": compiled, "epoch": 3}, tmp_path / "wrapped.pth")
    assert same(read_state_dict(tmp_path / "wrapped.pth"), state)
    renamed = {f"module.{k}": v for k, v in arrays(state).items()}
    path = tmp_path / "wrapped.pkl"
    path.write_bytes(pickle.dumps({"ema": {"net": renamed}, "epoch": 3}, 4))
    assert same(read_state_dict(path), state)


def test_pickles_of_the_first_numpy(state, tmp_path: Path) -> None:
    path = write_pickle(tmp_path / "model.pkl", arrays(state), 2)
    old = path.read_bytes().replace(b"numpy._core", b"numpy.core")
    assert old != path.read_bytes()
    path.write_bytes(old)
    assert same(read_state_dict(path), state)


@pytest.mark.parametrize("zipped", [True, False])
def test_pytorch_files(state, tmp_path: Path, zipped: bool) -> None:
    path = tmp_path / "model.pth"
    torch.save({"model": state, "iteration": 7}, path, _use_new_zipfile_serialization=zipped)
    assert same(read_state_dict(path), state)


def test_safetensors(state, tmp_path: Path) -> None:
    save_file({k: v.contiguous() for k, v in state.items()}, tmp_path / "model.safetensors")
    assert same(read_state_dict(tmp_path / "model.safetensors"), state)


def test_every_variant_of_the_names(state, tmp_path: Path) -> None:
    old = {}
    for key, value in arrays(state).items():
        key = key.replace("predictor.query_feat.", "predictor.static_query.")
        old["module." + key.replace("sem_seg_head.pixel_decoder.", "sem_seg_head.")] = value
    old["module.criterion.empty_weight"] = np.ones(6, np.float32)
    old["module.pixel_mean"] = np.zeros((3, 1, 1), np.float32)
    old["module.backbone.layers.0.blocks.0.attn.relative_position_index"] = np.zeros((16, 16), np.int64)
    assert same(read_state_dict(write_pickle(tmp_path / "old.pkl", old)), state)


def test_a_loaded_network_is_the_one_that_was_written(state, tmp_path: Path) -> None:
    network = load_network(str(write_pickle(tmp_path / "model.pkl", arrays(state))))
    assert same(network.state_dict(), state)
    assert not network.training
    image = torch.randn(1, 3, 32, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        want = toy_network(replace(network.config)).encode(image).mask_features
        assert torch.equal(network.encode(image).mask_features, want)


class Attack:
    """Runs a command when a careless reader loads it."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.marker}",)


def test_code_in_a_pickle_is_refused_by_name(tmp_path: Path) -> None:
    path = write_pickle(tmp_path / "model.pkl", {"a": Attack(tmp_path / "owned")})
    with pytest.raises(WeightsError, match=r"model\.pkl refused: it requests (posix|nt)\.system"):
        read_state_dict(path)
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize(
    "code", [b"cbuiltins\neval\n", b"cnumpy\nload\n", b"cnumpy.f2py\ncompile\n", b"ctorch._utils\n_rebuild_tensor_v2\n"]
)
def test_other_globals_are_refused(tmp_path: Path, code: bytes) -> None:
    path = tmp_path / "model.pkl"
    path.write_bytes(b"\x80\x02" + code + b".")
    with pytest.raises(WeightsError, match="refused"):
        read_state_dict(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x80\x04\x95", "damaged or truncated"),
        (pickle.dumps({"model": {}}), "instead of named arrays"),
        (pickle.dumps([1, 2]), "instead of named arrays"),
        (pickle.dumps({"a": "text"}), "'a' is not an array of numbers"),
        (pickle.dumps({"a": np.array([None, {}], object)}), "'a' is not an array of numbers"),
        (pickle.dumps({"a": np.zeros(3, np.float32)}), "not a Mask2Former state dict"),
        (b"no weights at all", "neither a PyTorch nor a safetensors file"),
    ],
)
def test_damaged_and_foreign_files(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "model.pkl"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=message):
        load_network(str(path))


def test_truncated_pickle(state, tmp_path: Path) -> None:
    path = write_pickle(tmp_path / "model.pkl", arrays(state))
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(WeightsError, match="damaged or truncated"):
        read_state_dict(path)


def test_names_and_shapes_must_fit(state) -> None:
    key = "sem_seg_head.predictor.decoder_norm.weight"
    with pytest.raises(WeightsError, match=rf"1 tensors missing \('{key}'\)"):
        network_from_state_dict({k: v for k, v in state.items() if k != key}, where="file")
    with pytest.raises(WeightsError, match=r"1 tensors not known \('backbone\.extra'\)"):
        network_from_state_dict({**state, "backbone.extra": torch.zeros(1)}, where="file")
    with pytest.raises(WeightsError, match=rf"'{key}' has shape \(7,\) instead of \(32,\)"):
        network_from_state_dict({**state, key: torch.zeros(7)}, where="file")


def test_missing_weights_say_how_to_get_them(tmp_path: Path, monkeypatch, caplog) -> None:
    monkeypatch.setenv("VIDSEG_WEIGHTS", str(tmp_path))
    with (
        caplog.at_level(logging.WARNING, "vidseg"),
        pytest.raises(WeightsError, match="vidseg weights fetch mask2former-"),
    ):
        load_network("mask2former-ytvis2021-r50", offline=True)
    assert "licence CC-BY-NC-4.0, for non-commercial use only" in caplog.text  # before anything is fetched
    with pytest.raises(WeightsError, match=r"no such weight file .*vidseg weights list"):
        load_network("no-such-file.pkl")
    with pytest.raises(UsageError, match="unknown Mask2Former weights 'xmem': a file, or mask2former-ytvis2019-r50"):
        load_network("xmem")


def test_position_code_with_time_for_youtube_vis_only(tmp_path: Path) -> None:
    assert ARCHITECTURES["r50"].video
    state = toy_network(replace(TOY, classes=40)).state_dict()
    assert network_from_state_dict(state, where="file").config.video
    assert not network_from_state_dict(state, video=False, where="file").config.video
    assert not network_from_state_dict(toy_network().state_dict(), where="file").config.video


def test_width_must_fit_the_heads() -> None:
    with pytest.raises(WeightsError, match="width 40"):
        Mask2FormerConfig(dim=40)


@pytest.mark.parametrize(
    ("choice", "count", "weights", "first", "last", "numbers"),
    [
        ("auto", 40, "mask2former-ytvis2019-r50", "person", "tennis_racket", (1, 40)),
        ("auto", 40, "mask2former-ytvis2021-swin-l", "airplane", "zebra", (1, 40)),
        ("auto", 40, "somewhere/model_final_b8aae2.pkl", "airplane", "zebra", (1, 40)),
        ("auto", 40, "my.pkl", "1", "40", (1, 40)),
        ("auto", 80, "model_final_3c8ec9.pkl", "person", "toothbrush", (1, 90)),
        ("numbers", 80, "any.pkl", "1", "90", (1, 90)),
        ("ytvis2019", 40, "my.pkl", "person", "tennis_racket", (1, 40)),
        ("auto", 25, "ovis.pkl", "1", "25", (1, 25)),
    ],
)
def test_names_of_classes(choice, count, weights, first, last, numbers) -> None:
    classes = class_set(choice, count, weights)
    assert (classes.names[0], classes.names[-1]) == (first, last)
    assert (classes.ids[first], classes.ids[last]) == numbers
    assert len(classes.names) == len(set(classes.ids.values())) == count


def test_names_of_another_data_set_are_refused() -> None:
    with pytest.raises(UsageError, match="classes=coco has 80 classes, the network has 40"):
        class_set("coco", 40, "my.pkl")
