"""Weight files: every kind that must load, and every kind that must be refused with a reason."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from sam_oracle import MINI_TINY, MINI_VIT, difference, mini_state, prompts, rule_tensor, vectors
from vidseg.errors import UsageError, WeightsError
from vidseg.loading import load_sam
from vidseg.sam.build import build_sam, from_state, save_sam
from vidseg.sam.config import named_config
from vidseg.sam.convert import infer_sam_config, is_decoder_only, merge_decoder, official_sam_state
from vidseg.weights import weights_identity
from vidseg.weights.catalog import find_local, split_model
from vidseg.weights.read import WeightFile, read_weights
from vidseg_trackers.xmem.weights import load_network

State = dict[str, torch.Tensor]
HQ = ("hf_token", "hf_mlp", "compress_vit_feat", "embedding_encoder", "embedding_maskfeature")


@pytest.fixture
def state() -> State:
    return mini_state()


def plain(state: State) -> State:
    return {k: v for k, v in state.items() if k.split(".")[1] not in HQ}


def save(path: Path, content: object) -> Path:
    torch.save(content, path)
    return path


def prefixed(prefix: str, state: State) -> State:
    return {prefix + k: v for k, v in state.items()}


def halfway(state: State) -> State:
    return {k.replace("image_encoder.", "image_encoder._orig_mod."): v for k, v in state.items()}


OPTIMIZER = {"state": {0: {"exp_avg": torch.zeros(2)}}, "param_groups": [{"lr": 0.1}]}


@pytest.mark.parametrize(
    "wrap",
    [
        lambda s: s,
        lambda s: {"model": s},
        lambda s: prefixed("module.", s),
        lambda s: {"model_state_dict": s, "optimizer_state_dict": OPTIMIZER, "epoch": 3},
        lambda s: prefixed("_orig_mod.", s),
        lambda s: prefixed("_orig_mod.module.", s),
        lambda s: {"state_dict": prefixed("model.", s), "epoch": 1, "optimizer_states": [OPTIMIZER]},
        lambda s: {"state_dict": prefixed("sam.", s), "loops": {"fit_loop": {}}},
        lambda s: {"module": s, "global_steps": 7},
        lambda s: {"net": prefixed("module.", s), "loss": 0.3},
        lambda s: {"ema": {"module": prefixed("network.", s), "updates": 9}},
        lambda s: {"model": prefixed("module.", s), "ema": s, "optimizer": {"exp_avg": prefixed("module.", s)}},
        lambda s: {"generator": s, "discriminator": {"conv.weight": torch.zeros(1)}},
        halfway,
    ],
)
def test_official_file_loads_by_its_path(tmp_path: Path, state: State, wrap: object) -> None:
    extra = {**state, "pixel_mean": torch.zeros(3, 1, 1), "pixel_std": torch.ones(3, 1, 1)}
    sam = load_sam(save(tmp_path / "hq.pth", wrap(extra)))  # type: ignore[operator]
    assert sam.config == MINI_VIT
    assert all(torch.equal(v, state[k]) for k, v in sam.state_dict().items())
    assert not sam.training and not any(p.requires_grad for p in sam.parameters())


def test_old_pickle_format_loads(tmp_path: Path, state: State) -> None:
    torch.save(state, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert load_sam(tmp_path / "old.pth").config == MINI_VIT


def test_round_trip_through_safetensors(tmp_path: Path, state: State) -> None:
    save_sam(from_state(MINI_VIT, state, "test"), tmp_path / "mini.safetensors")
    again = load_sam(tmp_path / "mini.safetensors")
    assert again.config == MINI_VIT
    assert all(torch.equal(v, state[k]) for k, v in again.state_dict().items())


def test_half_precision_on_disk_is_float32_in_use(tmp_path: Path, state: State) -> None:
    save_file({k: v.half() for k, v in state.items()}, tmp_path / "half.safetensors")
    assert load_sam(tmp_path / "half.safetensors").mask_decoder.iou_token.weight.dtype == torch.float32


def test_hugging_face_file_gives_hugging_face_masks(tmp_path: Path) -> None:
    want = vectors("hugging_face_mini")
    tensors = {}
    for line in want["keys"]:
        key, shape = str(line).split("\t")
        rule = "positional_encoding_gaussian_matrix" if "positional_embedding" in key else key
        tensors[key] = rule_tensor(rule, tuple(map(int, shape.split("x"))))
    save_file(tensors, tmp_path / "model.safetensors")
    sam = load_sam(tmp_path / "model.safetensors")
    pixels = np.random.RandomState(5).standard_normal((1, 3, 256, 256)).astype(np.float32)
    with torch.no_grad():
        embedding, early = sam.image_encoder(torch.from_numpy(pixels))
        sparse, dense = sam.prompt_encoder(boxes=prompts(256)["box"]["boxes"][:1])
        fused = sam.mask_decoder.fuse(embedding, early)
        out = sam.mask_decoder(embedding, sam.prompt_encoder.dense_pe(16, 16), sparse, dense, torch.tensor([0]), fused)
    # that implementation has another epsilon in the two-way transformer: 3e-5
    assert difference(out.sam[:, 0] + out.hq, want["masks"]) < 1e-4
    assert difference(out.iou[0, :1], want["iou"]) < 1e-4


def test_sizes_are_read_off_the_shapes() -> None:
    for name in ("sam-hq-vit-b", "sam-hq-vit-l", "sam-hq-vit-h", "sam-hq-vit-tiny", "sam-vit-b", "mobile-sam"):
        with torch.device("meta"):
            state = build_sam(named_config(name)).state_dict()
        assert infer_sam_config(state, name) == named_config(name)
    with torch.device("meta"):
        assert infer_sam_config(build_sam(MINI_TINY).state_dict(), "mini") == MINI_TINY


def test_plain_sam_as_hq_sam_is_an_error_that_says_so(tmp_path: Path, state: State) -> None:
    path = save(tmp_path / "sam.pth", plain(state))
    for model in (str(path), f"sam-hq-vit-b={path}"):
        with pytest.raises(WeightsError, match=r"plain SAM, not an HQ-SAM.*hf_token"):
            load_sam(model)
    sam = from_state(infer_sam_config(plain(state), "x"), plain(state), "x")
    assert not sam.config.hq and sam.config.output == "sam"


def test_hq_sam_as_plain_sam_is_an_error(tmp_path: Path, state: State) -> None:
    with pytest.raises(WeightsError, match="is an HQ-SAM, not a plain SAM"):
        load_sam(f"sam-vit-b={save(tmp_path / 'hq.pth', state)}")


def test_every_tensor_is_accounted_for(tmp_path: Path, state: State) -> None:
    gone = dict(state)
    del gone["mask_decoder.hf_mlp.layers.1.bias"]
    with pytest.raises(WeightsError, match=r"1 tensors missing \('mask_decoder.hf_mlp.layers.1.bias'\)"):
        load_sam(save(tmp_path / "gone.pth", gone))
    with pytest.raises(WeightsError, match=r"fit: 1 tensors not known.*mask_decoder.other"):
        load_sam(save(tmp_path / "more.pth", {**state, "mask_decoder.other": torch.zeros(1)}))
    bent = {**state, "mask_decoder.hf_mlp.layers.1.bias": torch.zeros(63)}
    with pytest.raises(WeightsError, match=r"layers.1.bias' has shape \(63,\) instead of \(64,\)"):
        load_sam(save(tmp_path / "bent.pth", bent))
    del gone["prompt_encoder.no_mask_embed.weight"]
    with pytest.raises(WeightsError, match="no_mask_embed"):
        load_sam(save(tmp_path / "gone.pth", gone))


def test_file_of_another_size(tmp_path: Path, state: State) -> None:
    with pytest.raises(WeightsError, match="does not fit"):
        load_sam(f"sam-hq-vit-b={save(tmp_path / 'mini.pth', state)}")
    with pytest.raises(WeightsError, match="is not a SAM: it has parts 'layer'"):
        load_sam(save(tmp_path / "other.pth", {"layer.weight": torch.zeros(2)}))


def test_trained_decoder_is_joined_with_its_sam(tmp_path: Path, state: State) -> None:
    decoder = {k.removeprefix("mask_decoder."): v for k, v in state.items() if k.startswith("mask_decoder.")}
    with pytest.raises(WeightsError, match=r"only a trained mask decoder.*--sam"):
        load_sam(save(tmp_path / "epoch_11.pth", decoder))
    assert is_decoder_only(decoder) and not is_decoder_only(state)
    merged = merge_decoder(decoder, plain(state))
    assert merged.keys() == state.keys()
    assert all(torch.equal(merged[k], state[k]) for k in state)
    other = {**plain(state), "mask_decoder.iou_token.weight": torch.ones(1, 64)}
    with pytest.raises(WeightsError, match=r"another SAM: mask_decoder.iou_token.weight"):
        merge_decoder(decoder, other)


class Hostile:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("hacked",)


@pytest.mark.parametrize("zipped", [True, False])
def test_hostile_pickle_is_refused_by_name(
    tmp_path: Path, state: State, zipped: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "evil.pth"
    torch.save({**state, "x": Hostile()}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(WeightsError, match=r"refused: it would run code.*(posix|nt)\.mkdir"):
        load_sam(path)
    assert not (tmp_path / "hacked").exists()


def test_bare_hostile_pickle_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "evil.pt").write_bytes(pickle.dumps(Hostile(), protocol=2))
    with pytest.raises(WeightsError, match=r"evil.pt refused.*mkdir"):
        load_sam(tmp_path / "evil.pt")
    assert not (tmp_path / "hacked").exists()


@pytest.mark.parametrize("name", ["a.pth", "old.pth", "a.safetensors"])
@pytest.mark.parametrize("keep", [0.0, 0.0001, 0.5, 0.999])
def test_truncated_file(tmp_path: Path, state: State, name: str, keep: float) -> None:
    path = tmp_path / name
    if name.endswith("safetensors"):
        save_file(state, path)
    else:
        torch.save(state, path, _use_new_zipfile_serialization=name != "old.pth")
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])
    with pytest.raises(WeightsError, match=name) as caught:
        load_sam(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content", [b"", b"<html>404</html>", b"\x89PNG\r\n\x1a\n" + b"0" * 99, b"PK\x03\x04" + b"0" * 99]
)
def test_disguised_file(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "w.pth").write_bytes(content)
    with pytest.raises(WeightsError, match=r"w.pth.*damaged"):
        load_sam(tmp_path / "w.pth")


def test_two_networks_in_one_file_are_not_guessed_at(tmp_path: Path, state: State) -> None:
    with pytest.raises(WeightsError, match=r"2 of its parts are a SAM: student .*, teacher .*file of its own"):
        load_sam(save(tmp_path / "two.pth", {"student": state, "teacher": state}))
    two = {"a": {"conv.weight": torch.zeros(1)}, "b": {"fc.weight": torch.zeros(1)}}
    with pytest.raises(WeightsError, match=r"none of its parts is a SAM: a \('conv'\), b \('fc'\)"):
        load_sam(save(tmp_path / "none.pth", two))
    with pytest.raises(WeightsError, match="is not a SAM: it has parts 'conv' instead of"):
        load_sam(save(tmp_path / "other.pth", {"model_state_dict": two["a"], "epoch": 3}))


def test_wrapped_files_of_the_trackers_load_too(tmp_path: Path) -> None:
    embedded = find_local("compact-xmem")
    assert embedded is not None
    config = read_weights(embedded).metadata
    tensors = read_weights(embedded).tensors
    save_file(prefixed("_orig_mod.module.", tensors), tmp_path / "xmem.safetensors", metadata=config)
    network = load_network(str(tmp_path / "xmem.safetensors"), device=torch.device("cpu"), offline=True)
    assert network.state_dict().keys() == tensors.keys()


def test_configuration_of_another_tool_is_a_matter_of_the_weights(tmp_path: Path, state: State) -> None:
    for text in ("{", "[]", '{"hidden_size": 3}'):
        save_file(state, tmp_path / "other.safetensors", metadata={"config": text})
        with pytest.raises(WeightsError, match=r"other.safetensors: its configuration cannot be read"):
            load_sam(tmp_path / "other.safetensors")


def test_other_contents(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="instead of named tensors"):
        read_weights(save(tmp_path / "list.pth", [1, 2]))
    with pytest.raises(WeightsError, match="'epoch' not a tensor"):
        read_weights(save(tmp_path / "run.pth", {"epoch": 3, "w": torch.zeros(1)}))
    with pytest.raises(WeightsError, match="no such weight file"):
        load_sam(tmp_path / "nothing.pth")


def test_unknown_model_names_the_closest() -> None:
    with pytest.raises(UsageError, match="did you mean 'sam-hq-vit-l'"):
        load_sam("sam-hq-vit-I")
    with pytest.raises(UsageError, match="unknown model 'xmem'"):
        load_sam("xmem")


def test_what_a_model_argument_means(tmp_path: Path) -> None:
    file = tmp_path / "a=b.pth"
    assert split_model("compact") == ("compact", None)
    assert split_model(f"sam-vit-b={file}") == ("sam-vit-b", file)
    assert split_model(str(file)) == ("", file)
    assert split_model("./compact") == ("", Path("./compact"))
    file.write_bytes(b"x")
    assert weights_identity(str(file))["sha256"].startswith("2d711642b726b04401627ca9fbac32f5")


def test_unsafe_dtype_is_refused(tmp_path: Path, state: State) -> None:
    with pytest.raises(UsageError, match=r"float64: allowed are float32"):
        load_sam(save(tmp_path / "hq.pth", state), dtype=torch.float64)


def test_bfloat16_keeps_norms_in_float32(tmp_path: Path, state: State) -> None:
    sam = load_sam(save(tmp_path / "hq.pth", state), dtype=torch.bfloat16)
    assert sam.image_encoder.blocks[0].attn.qkv.weight.dtype == torch.bfloat16
    assert sam.image_encoder.blocks[0].norm1.weight.dtype == torch.float32
    assert sam.prompt_encoder.pe_layer.positional_encoding_gaussian_matrix.dtype == torch.float32


def test_two_different_positional_codes_are_refused(state: State) -> None:
    tensors = {
        "vision_encoder.pos_embed": torch.zeros(1),
        "shared_image_embedding.positional_embedding": torch.zeros(2, 4),
        "prompt_encoder.shared_embedding.positional_embedding": torch.ones(2, 4),
    }
    with pytest.raises(WeightsError, match="two different tensors"):
        official_sam_state(WeightFile(Path("x"), tensors, {}))
