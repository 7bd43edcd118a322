"""From a name or a file to a SAM 2 network: official .pt files, Hugging Face safetensors, and our own."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from vidseg.errors import UsageError, WeightsError
from vidseg.sam2.config import OFFICIAL, Sam2Config
from vidseg.sam2.hugging_face import official_names
from vidseg.sam2.model import Sam2
from vidseg.weights.catalog import CATALOG, split_model
from vidseg.weights.fetch import Progress, file_here, locate_model
from vidseg.weights.fit import NoInitialWeights, check_state, config_from_metadata
from vidseg.weights.read import WeightFile, read_weights, tensor_names
from vidseg.weights.unwrap import ExpectedNetwork

HQ_PARTS = ("hf_token", "hf_mlp", "embedding_maskfeature")
"""Modules of the mask decoder that HQ-SAM 2 adds."""
_HQ_TOKEN = "sam_mask_decoder.hf_token.weight"
_WIDTH = "image_encoder.trunk.patch_embed.proj.weight"
_OCCLUSION = "no_obj_embed_spatial"
_YAML_SIZES = {"tiny": "t", "small": "s", "base-plus": "b+", "large": "l"}
_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def is_sam2(names: Collection[str]) -> bool:
    """True for the names of a SAM 2, official or Hugging Face's, even when parts of it are missing."""
    heads = {name.partition(".")[0] for name in names}
    official = {"image_encoder", "sam_mask_decoder", "sam_prompt_encoder"} <= heads
    return official or any(name.startswith("vision_encoder.backbone.blocks.") for name in names)


SAM2 = ExpectedNetwork("a SAM 2", is_sam2)
"""What a SAM 2 file is expected to hold, for the reader of weights."""


def names_a_sam2(model: str) -> bool:
    """Whether ``model`` (a name of the catalogue, a file, or NAME=FILE) is a SAM 2, as far as names tell."""
    name, path = split_model(model)
    if name or path is None:
        return name in CATALOG and CATALOG[name].family == "sam2"
    return is_sam2(tensor_names(file_here(path)))


def published_config(name: str) -> Sam2Config:
    """The configuration of a name of the catalogue, such as ``sam2.1-hiera-base-plus``."""
    version, _, rest = name.partition("-")
    hq, _, size = rest.rpartition("hiera-")
    return OFFICIAL[f"{version}_{'hq_' if hq else ''}hiera_{_YAML_SIZES[size]}"]


def load_sam2(
    model: str | Path,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    offline: bool = False,
    progress: Progress | None = None,
) -> Sam2:
    """A network with weights, in evaluation mode, without gradients.

    ``model`` is a name of the catalogue (fetched when it is not here yet), a file, or "NAME=FILE" for a file that must
    be the model of that name. Windows and flags are not in official files: they are those of the published
    configuration that fits; files of ours carry theirs.

    Raises:
        UsageError: unknown name, or a dtype other than float32, bfloat16 and float16.
        WeightsError: missing, damaged, unsafe, or not the SAM 2 that is named.
    """
    name, path = locate_model(str(model), "SAM 2", "sam2", offline=offline, progress=progress)
    return place_sam2(sam2_from_file(read_weights(path, SAM2), name), torch.device(device), dtype)


def sam2_from_file(file: WeightFile, name: str = "") -> Sam2:
    """A float32 network from a file that was read; with ``name`` (of the catalogue) it must be that model.

    Raises:
        WeightsError: it is something else; says what.
    """
    state, where = official_sam2_state(file), str(file.path)
    if name and "config" not in file.metadata:
        config = published_config(name)
        found = _published(state)
        if config.hq and _HQ_TOKEN not in state and found is not None:
            raise WeightsError(
                f"{where} is {found}, an HQ-SAM 2 without its head (sam_mask_decoder.{', '.join(HQ_PARTS)}): use the"
                f" file of {name}, or this one as {found}"
            )
        if found is not None and found != name:
            raise WeightsError(f"{where} is {found}, not {name}")
    else:
        config = infer_sam2_config(state, where, file.metadata)
    return sam2_from_state(config, state, where)


def sam2_from_state(config: Sam2Config, state: Mapping[str, Tensor], where: str) -> Sam2:
    """A network of ``config`` that holds exactly the tensors of ``state`` (official names, float32)."""
    with torch.device("meta"), NoInitialWeights():
        net = Sam2(config)
    check_state(state, net.state_dict(), where)
    net.load_state_dict(state, strict=True, assign=True)
    return net.eval().requires_grad_(False)


def place_sam2(net: Sam2, device: torch.device, dtype: torch.dtype) -> Sam2:
    """The network on a device; all parameters in ``dtype``, while the code of positions stays float32.

    Raises:
        UsageError: another dtype than float32, bfloat16 and float16.
    """
    if dtype not in _DTYPES:
        raise UsageError(f"dtype {dtype}: allowed are float32, bfloat16 and float16")
    for parameter in net.parameters():
        parameter.data = parameter.data.to(device, dtype)
    return net.to(device)


def save_sam2(net: Sam2, path: Path, *, half: bool = False) -> None:
    """Write a safetensors file with the configuration in its metadata, or, as .pt or .pth, one like the official ones.

    ``half`` stores safetensors in half precision. The file appears whole or not at all.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    state = {k: v.detach().cpu().float().contiguous() for k, v in net.state_dict().items()}
    if path.suffix in (".pt", ".pth"):
        torch.save({"model": state}, part)
    else:
        state = {k: v.half() if half else v for k, v in state.items()}
        save_file(state, part, metadata={"config": net.config.to_json(), "format": "pt"})
    part.replace(path)


def official_sam2_state(file: WeightFile) -> dict[str, Tensor]:
    """The tensors of a SAM 2 file under the official names, in float32.

    Raises:
        WeightsError: it is a SAM of the first kind, or none at all.
    """
    tensors: Mapping[str, Tensor] = file.tensors
    if not is_sam2(tensors):
        heads = {name.partition(".")[0] for name in tensors}
        if {"prompt_encoder", "mask_decoder"} <= heads:
            raise WeightsError(f"{file.path} is a SAM of the first generation, not a SAM 2: use it as --model FILE")
        raise WeightsError(f"{file.path} is not a SAM 2: it has parts {', '.join(sorted(heads)[:6])}")
    if any(key.startswith("vision_encoder.") for key in tensors):
        tensors = official_names(tensors, str(file.path))
    return {k: v.float() for k, v in tensors.items()}


def infer_sam2_config(state: Mapping[str, Tensor], where: str, metadata: Mapping[str, str] | None = None) -> Sam2Config:
    """The configuration of a state dict with official names: that of our own file, else the published one that fits.

    Raises:
        WeightsError: none fits, or the configuration in the file cannot be read.
    """
    if metadata and "config" in metadata:
        return config_from_metadata(Sam2Config, metadata["config"], where)
    name = _published(state)
    if name is None:
        width, blocks = _trunk(state)
        raise WeightsError(
            f"{where} is not a published SAM 2: a first width of {width or 'nothing'} with {blocks} blocks fits none of"
            " tiny, small, base-plus and large, and the file carries no configuration"
        )
    return replace(published_config(name), hq=_HQ_TOKEN in state)


def _published(state: Mapping[str, Tensor]) -> str | None:
    """Name in the catalogue of the published network that has these sizes and parts; HQ parts count for large only."""
    version = "sam2.1" if _OCCLUSION in state else "sam2"
    for size, yaml in _YAML_SIZES.items():
        trunk = OFFICIAL[f"{version}_hiera_{yaml}"].trunk
        if _trunk(state) == (trunk.embed_dim, sum(trunk.stages)):
            hq = f"{version}-hq-hiera-{size}"
            return hq if _HQ_TOKEN in state and hq in CATALOG else f"{version}-hiera-{size}"
    return None


def _trunk(state: Mapping[str, Tensor]) -> tuple[int, int]:
    """First width and number of blocks of the image encoder, 0 where there is none."""
    prefix = "image_encoder.trunk.blocks."
    blocks = {key.removeprefix(prefix).partition(".")[0] for key in state if key.startswith(prefix)}
    return (state[_WIDTH].shape[0] if _WIDTH in state else 0), len(blocks)
