"""SAM 2 files: official, Hugging Face's and our own; which model they are; what is said of those that do not fit."""

from __future__ import annotations

import os
import pickle
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from sam2_rule import Case, rule_sam2
from vidseg.errors import UsageError, WeightsError
from vidseg.loading import load_sam
from vidseg.sam2.adapter import Sam2AsSam
from vidseg.sam2.config import OFFICIAL, Sam2Config
from vidseg.sam2.loading import infer_sam2_config, load_sam2, official_sam2_state, published_config, save_sam2
from vidseg.sam2.model import Sam2
from vidseg.weights.catalog import CATALOG
from vidseg.weights.read import WeightFile
from vidseg_pipelines.cli import main

NAMES = [name for name, entry in CATALOG.items() if entry.family == "sam2"]
State = dict[str, Tensor]


def mini_config(hq: bool = False) -> Sam2Config:
    case = Case("image_mini_hq" if hq else "image_mini")
    name = case.meta["base_config"].split("/")[-1].removesuffix(".yaml")
    return Sam2Config.official(name, case.meta["overrides"])


@pytest.fixture(scope="module")
def net() -> Sam2:
    return rule_sam2(mini_config())


@pytest.fixture(scope="module")
def hq_net() -> Sam2:
    return rule_sam2(mini_config(hq=True))


@pytest.fixture
def as_published(monkeypatch: pytest.MonkeyPatch) -> None:
    """The published tiny and large networks are small ones of this test."""
    mini, hq = mini_config(), mini_config(hq=True)
    hq = replace(hq, trunk=replace(hq.trunk, stages=(1, 2, 2, 1), global_blocks=(3,)))
    monkeypatch.setitem(OFFICIAL, "sam2.1_hiera_t", mini)
    monkeypatch.setitem(OFFICIAL, "sam2_hiera_t", replace(mini, occlusion=False, pointer_positions=False))
    monkeypatch.setitem(OFFICIAL, "sam2.1_hiera_l", replace(hq, hq=False))
    monkeypatch.setitem(OFFICIAL, "sam2.1_hq_hiera_l", hq)


def official(path: Path, state: Mapping[str, Tensor], **more: object) -> Path:
    torch.save({"model": dict(state), **more}, path)
    return path


def equal(net: Sam2, state: Mapping[str, Tensor]) -> bool:
    return all(torch.equal(v, state[k]) for k, v in net.state_dict().items())


@pytest.mark.parametrize("name", NAMES)
def test_a_file_tells_which_published_network_it_is(name: str) -> None:
    with torch.device("meta"):
        state = Sam2(published_config(name)).state_dict()
    assert infer_sam2_config(state, "file") == published_config(name)


def test_an_official_file_loads_by_its_path_and_by_its_name(net: Sam2, as_published: None, tmp_path: Path) -> None:
    path = official(tmp_path / "tiny.pt", net.state_dict())
    for model in (str(path), f"sam2.1-hiera-tiny={path}"):
        loaded = load_sam2(model)
        assert loaded.config == net.config and equal(loaded, net.state_dict())
        assert not loaded.training and not any(p.requires_grad for p in loaded.parameters())


def test_a_training_checkpoint_with_its_optimizer_loads(net: Sam2, as_published: None, tmp_path: Path) -> None:
    optimizer = {"state": {0: {"step": torch.tensor(3.0), "exp_avg": torch.zeros(2)}}, "param_groups": [{"lr": 1e-4}]}
    path = official(tmp_path / "checkpoint.pt", net.state_dict(), optimizer=optimizer, epoch=3, loss={"core": 0.1})
    assert equal(load_sam2(path), net.state_dict())


def test_our_own_files_carry_their_configuration(net: Sam2, hq_net: Sam2, tmp_path: Path) -> None:
    for number, one in enumerate((net, hq_net)):
        path = tmp_path / f"{number}.safetensors"
        save_sam2(one, path)
        loaded = load_sam2(path)
        assert loaded.config == one.config and equal(loaded, one.state_dict())
        save_sam2(one, path, half=True)
        assert load_sam2(path).no_mem_embed.dtype == torch.float32


# The names of Hugging Face's Sam2VideoModel, from the official ones.
TO_HUGGING_FACE = [
    (r"^image_encoder\.trunk", "vision_encoder.backbone"),
    (r"^image_encoder\.neck\.convs\.(\d)\.conv", r"vision_encoder.neck.convs.\1"),
    (r"patch_embed\.proj", "patch_embed.projection"),
    (r"mask_downsampler\.encoder\.12", "mask_downsampler.final_conv"),
    *((rf"mask_downsampler\.encoder\.{3 * k}\.", f"mask_downsampler.layers.{k}.conv.") for k in range(4)),
    *((rf"mask_downsampler\.encoder\.{3 * k + 1}\.", f"mask_downsampler.layers.{k}.layer_norm.") for k in range(4)),
    (r"((?:head|obj_ptr_proj|mlps\.\d))\.layers\.0", r"\1.proj_in"),
    (r"((?:head|obj_ptr_proj|mlps\.\d))\.layers\.1", r"\1.layers.0"),
    (r"((?:head|obj_ptr_proj|mlps\.\d))\.layers\.2", r"\1.proj_out"),
    (r"mlp\.layers\.0", "mlp.proj_in"),
    (r"mlp\.layers\.1", "mlp.proj_out"),
    (r"mask_downscaling\.0", "mask_embed.conv1"),
    (r"mask_downscaling\.1", "mask_embed.layer_norm1"),
    (r"mask_downscaling\.3", "mask_embed.conv2"),
    (r"mask_downscaling\.4", "mask_embed.layer_norm2"),
    (r"mask_downscaling\.6", "mask_embed.conv3"),
    (r"output_upscaling\.0", "upscale_conv1"),
    (r"output_upscaling\.1", "upscale_layer_norm"),
    (r"output_upscaling\.3", "upscale_conv2"),
    (r"pe_layer\.positional_encoding_gaussian_matrix", "shared_embedding.positional_embedding"),
    (r"^sam_", ""),
    (r"obj_ptr_tpos_proj", "temporal_positional_encoding_projection_layer"),
    (r"obj_ptr", "object_pointer"),
    (r"no_obj_embed_spatial", "occlusion_spatial_embedding_parameter"),
    (r"maskmem_tpos_enc", "memory_temporal_positional_encoding"),
    (r"no_mem_embed", "no_memory_embedding"),
    (r"no_mem_pos_enc", "no_memory_positional_encoding"),
    (r"pix_feat_proj", "feature_projection"),
    (r"^memory_encoder\.out_proj", "memory_encoder.projection"),
    (r"memory_encoder\.fuser", "memory_encoder.memory_fuser"),
    (r"dwconv", "depthwise_conv"),
    (r"pwconv", "pointwise_conv"),
    (r"gamma", "scale"),
    (r"\.norm", ".layer_norm"),
]


def hugging_face(state: Mapping[str, Tensor], attention: str = "o_proj") -> State:
    """The file that Hugging Face's converter makes of an official one."""
    result: State = {}
    for key, value in state.items():
        for pattern, replacement in TO_HUGGING_FACE:
            key = re.sub(pattern, replacement, key)
        result[key.replace("out_proj", attention)] = value
    embeddings = [result.pop(f"prompt_encoder.point_embeddings.{i}.weight") for i in range(4)]
    result["prompt_encoder.point_embed.weight"] = torch.cat(embeddings)
    code = result["prompt_encoder.shared_embedding.positional_embedding"]
    return result | {"shared_image_embedding.positional_embedding": code.clone()}


@pytest.mark.parametrize("attention", ["o_proj", "out_proj"])
def test_a_hugging_face_file_is_the_same_network(net: Sam2, as_published: None, tmp_path: Path, attention: str) -> None:
    path = tmp_path / "model.safetensors"
    save_file({k: v.contiguous() for k, v in hugging_face(net.state_dict(), attention).items()}, path)
    assert equal(load_sam2(path), net.state_dict())


@pytest.mark.extras
def test_the_names_of_hugging_face_are_those_of_its_model() -> None:
    transformers = pytest.importorskip("transformers")
    with torch.device("meta"):
        theirs = transformers.Sam2VideoModel(transformers.Sam2VideoConfig()).state_dict()
        ours = Sam2(published_config("sam2.1-hiera-tiny")).state_dict()
    zeros = {k: torch.zeros(()).expand(v.shape) for k, v in theirs.items()}
    state = official_sam2_state(WeightFile(Path("x"), zeros, {}))
    assert {k: v.shape for k, v in state.items()} == {k: v.shape for k, v in ours.items()}


def refused(tmp_path: Path, model: object, capsys: pytest.CaptureFixture[str], *words: str) -> None:
    """``vidseg image`` ends with exit code 4 and one line with these words."""
    assert main(["image", "missing.png", "--output", str(tmp_path / "out"), "--auto", "--model", str(model)]) == 4
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    for word in words:
        assert word in lines[0]


def test_another_model_than_the_named_one_is_refused_in_one_line_that_says_which(
    net: Sam2, as_published: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = official(tmp_path / "sam2.pt", net.state_dict())
    refused(tmp_path, f"sam-vit-b={path}", capsys, "is a SAM 2, not sam-vit-b")
    refused(tmp_path, f"sam2-hiera-tiny={path}", capsys, "is sam2.1-hiera-tiny, not sam2-hiera-tiny")
    sam = {f"{part}.weight": torch.zeros(3) for part in ("image_encoder.x", "prompt_encoder.x", "mask_decoder.x")}
    torch.save(sam, tmp_path / "sam.pth")
    refused(
        tmp_path, f"sam2.1-hiera-tiny={tmp_path / 'sam.pth'}", capsys, "is a SAM of the first generation, not a SAM 2"
    )
    large = replace(OFFICIAL["sam2.1_hq_hiera_l"], hq=False)
    headless = official(tmp_path / "headless.pt", rule_sam2(large).state_dict())
    refused(tmp_path, f"sam2.1-hq-hiera-large={headless}", capsys, "HQ-SAM 2 without its head", "hf_token")
    state = rule_sam2(replace(large, hq=True)).state_dict()
    whole = official(tmp_path / "hq.pt", state)
    refused(tmp_path, f"sam2.1-hiera-large={whole}", capsys, "is sam2.1-hq-hiera-large, not sam2.1-hiera-large")
    del state["sam_mask_decoder.hf_mlp.layers.1.bias"]
    part = official(tmp_path / "part.pt", state)
    refused(tmp_path, part, capsys, "1 tensors missing ('sam_mask_decoder.hf_mlp.layers.1.bias')")
    small = {k: v for k, v in net.state_dict().items() if not re.search(r"blocks\.[56]\.", k)}
    refused(
        tmp_path,
        official(tmp_path / "other.pt", small),
        capsys,
        "not a published SAM 2",
        "first width of 16 with 5 blocks",
    )


def test_damaged_and_hostile_files_are_refused_in_one_line(
    net: Sam2, as_published: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = official(tmp_path / "whole.pt", net.state_dict())
    (tmp_path / "cut.pt").write_bytes(path.read_bytes()[:-1000])
    refused(tmp_path, tmp_path / "cut.pt", capsys, "damaged or truncated")

    class Hostile:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.system, (f"touch {tmp_path / 'ran'}",)

    (tmp_path / "evil.pt").write_bytes(pickle.dumps({"model": Hostile()}, protocol=2))
    refused(tmp_path, f"sam2.1-hiera-tiny={tmp_path / 'evil.pt'}", capsys, "refused", "run code")
    assert not (tmp_path / "ran").exists()
    shapes = dict(net.state_dict()) | {"no_mem_embed": torch.zeros(1, 1, 3)}
    refused(
        tmp_path,
        official(tmp_path / "bent.pt", shapes),
        capsys,
        "no_mem_embed' has shape (1, 1, 3) instead of (1, 1, 64)",
    )


def test_unknown_names_and_types_are_usage_errors(net: Sam2, as_published: None, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"did you mean 'sam2.1-hiera-tiny'"):
        load_sam("sam2.1-hiera-tyni")
    with pytest.raises(UsageError, match="unknown SAM 2 'compact'"):
        load_sam2("compact")
    with pytest.raises(UsageError, match="float64"):
        load_sam2(official(tmp_path / "tiny.pt", net.state_dict()), dtype=torch.float64)
    with pytest.raises(WeightsError, match="offline"):
        load_sam2("sam2.1-hiera-small", offline=True)


def test_convert_makes_a_file_that_loads_by_its_path(
    hq_net: Sam2, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(OFFICIAL, "sam2.1_hiera_t", replace(hq_net.config, hq=False))
    path = official(tmp_path / "hq.pt", hq_net.state_dict())
    assert main(["weights", "convert", str(path)]) == 0
    monkeypatch.undo()
    loaded = load_sam(path.with_suffix(".safetensors"))
    assert isinstance(loaded, Sam2AsSam) and loaded.config.output == "sum"
    assert loaded.net.config == hq_net.config and equal(loaded.net, hq_net.state_dict())
