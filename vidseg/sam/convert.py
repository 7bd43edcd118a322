"""State dicts of SAM from their publishers' files: official names, sizes read off the shapes, all accounted for."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from vidseg.backbones.tiny_vit import TinyVitConfig
from vidseg.errors import WeightsError
from vidseg.sam.config import SamConfig, VitConfig
from vidseg.sam.hq import HQ_PARTS
from vidseg.weights.fit import check_state, config_from_metadata
from vidseg.weights.read import WeightFile
from vidseg.weights.unwrap import ExpectedNetwork, some

SAM = ExpectedNetwork("a SAM", lambda names: _is_sam(names))
"""What a SAM file is expected to hold, for the reader of weights."""

_PE = "prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"
_IGNORED = ("pixel_mean", "pixel_std")

# Hugging Face SamModel and SamHQModel -> official names, applied in order.
_HUGGING_FACE: tuple[tuple[str, str], ...] = (
    (r"^(shared_image_embedding|prompt_encoder\.shared_embedding)\.positional_embedding$", _PE),
    (r"^vision_encoder\.layers\.", "image_encoder.blocks."),
    (r"^vision_encoder\.", "image_encoder."),
    (r"\.patch_embed\.projection\.", ".patch_embed.proj."),
    (r"\.neck\.conv1\.", ".neck.0."),
    (r"\.neck\.layer_norm1\.", ".neck.1."),
    (r"\.neck\.conv2\.", ".neck.2."),
    (r"\.neck\.layer_norm2\.", ".neck.3."),
    (r"\.mask_embed\.conv1\.", ".mask_downscaling.0."),
    (r"\.mask_embed\.layer_norm1\.", ".mask_downscaling.1."),
    (r"\.mask_embed\.conv2\.", ".mask_downscaling.3."),
    (r"\.mask_embed\.layer_norm2\.", ".mask_downscaling.4."),
    (r"\.mask_embed\.conv3\.", ".mask_downscaling.6."),
    (r"\.point_embed\.", ".point_embeddings."),
    (r"\.upscale_conv1\.", ".output_upscaling.0."),
    (r"\.upscale_layer_norm\.", ".output_upscaling.1."),
    (r"\.upscale_conv2\.", ".output_upscaling.3."),
    (r"\.compress_vit_conv1\.", ".compress_vit_feat.0."),
    (r"\.compress_vit_norm\.", ".compress_vit_feat.1."),
    (r"\.compress_vit_conv2\.", ".compress_vit_feat.3."),
    (r"\.encoder_conv1\.", ".embedding_encoder.0."),
    (r"\.encoder_norm\.", ".embedding_encoder.1."),
    (r"\.encoder_conv2\.", ".embedding_encoder.3."),
    (r"\.mask_conv1\.", ".embedding_maskfeature.0."),
    (r"\.mask_norm\.", ".embedding_maskfeature.1."),
    (r"\.mask_conv2\.", ".embedding_maskfeature.3."),
    (r"\.hq_token\.", ".hf_token."),
    (r"\.hq_mask_mlp\.", ".hf_mlp."),
    (r"(\.(?:iou_prediction_head|output_hypernetworks_mlps\.\d+|hf_mlp))\.layers\.0\.", r"\1.layers.1."),
    (r"(\.(?:iou_prediction_head|output_hypernetworks_mlps\.\d+|hf_mlp))\.proj_in\.", r"\1.layers.0."),
    (r"(\.(?:iou_prediction_head|output_hypernetworks_mlps\.\d+|hf_mlp))\.proj_out\.", r"\1.layers.2."),
    (r"\.layer_norm", ".norm"),
)


def official_sam_state(file: WeightFile) -> dict[str, Tensor]:
    """The tensors of a SAM file under the official names, in float32 (integers stay integers).

    Reads official SAM, HQ-SAM and MobileSAM files, Hugging Face SamModel and SamHQModel files, and our own.

    Raises:
        WeightsError: a decoder-only file of a training run, or no SAM at all.
    """
    if "added_to" in file.metadata:
        raise WeightsError(
            f"{file.path} holds only what was trained beside a SAM (LoRA, adapters): use it as BASE+FILE, where BASE is"
            " the SAM that its recipe started from"
        )
    tensors = {k: v for k, v in file.tensors.items() if k not in _IGNORED}
    if any(k.startswith("vision_encoder.") for k in tensors):
        tensors = _from_hugging_face(tensors, str(file.path))
    if is_decoder_only(tensors):
        raise WeightsError(
            f"{file.path} holds only a trained mask decoder: join it with the SAM file it was trained on,"
            f" `vidseg weights convert {file.path.name} --sam SAM_FILE`"
        )
    parts = {k.split(".")[0] for k in tensors} - {"objectness"}  # only our own files may have one
    if parts != {"image_encoder", "prompt_encoder", "mask_decoder"}:
        raise WeightsError(
            f"{file.path} is not a SAM: it has parts {some(sorted(parts))} instead of image_encoder, prompt_encoder"
            " and mask_decoder"
        )
    return {k: v.float() if v.is_floating_point() else v for k, v in tensors.items()}


def _is_sam(names: Iterable[str]) -> bool:
    heads = {name.partition(".")[0] for name in names}
    encoders = {"image_encoder", "vision_encoder"}
    return bool(heads & encoders and {"prompt_encoder", "mask_decoder"} <= heads) or is_decoder_only(names)


def is_decoder_only(tensors: Iterable[str]) -> bool:
    """True for the epoch files of the official HQ training code: decoder tensors without prefix."""
    heads = {k.split(".")[0] for k in tensors}
    return "transformer" in heads and "mask_tokens" in heads and "image_encoder" not in heads


def merge_decoder(decoder: Mapping[str, Tensor], sam: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A full HQ-SAM: the ``sam`` state dict, and from the decoder-only file the tensors that it lacks.

    Every tensor that both have must be equal, because HQ training leaves SAM as it is.
    """
    merged = dict(sam)
    for key, value in decoder.items():
        full = f"mask_decoder.{key}"
        other = merged.get(full)
        if other is not None and (other.shape != value.shape or not torch.equal(other, value.to(other.dtype))):
            raise WeightsError(f"the decoder was trained on another SAM: {full} differs from that of the SAM file")
        merged.setdefault(full, value.float())
    return merged


def infer_sam_config(state: Mapping[str, Tensor], where: str, metadata: Mapping[str, str] | None = None) -> SamConfig:
    """The configuration of a state dict with official names, from the shapes (our own files carry it as text).

    Raises:
        WeightsError: an encoder we do not know, tensors missing that tell a size, or a configuration of another tool.
    """
    if metadata and "config" in metadata:
        return config_from_metadata(SamConfig, metadata["config"], where)
    try:
        dim = state["prompt_encoder.no_mask_embed.weight"].shape[1]
        hq = "mask_decoder.hf_token.weight" in state
        common: dict[str, Any] = {
            "hq": hq,
            "output": "sum" if hq else "sam",
            "prompt_dim": dim,
            "decoder_mlp_dim": state["mask_decoder.transformer.layers.0.mlp.lin1.weight"].shape[0],
            "iou_hidden_dim": state["mask_decoder.iou_prediction_head.layers.0.weight"].shape[0],
            "mask_in_channels": state["prompt_encoder.mask_downscaling.4.weight"].shape[0],
            "hq_fusion": not hq or any(key.startswith("mask_decoder.embedding_maskfeature.") for key in state),
        }
        if hq and common["hq_fusion"]:
            common["early_channels"] = state["mask_decoder.compress_vit_feat.0.weight"].shape[0]
        if "image_encoder.pos_embed" in state:
            return SamConfig(
                encoder="vit", vit=_vit(state), image_size=16 * state["image_encoder.pos_embed"].shape[1], **common
            )
        if "image_encoder.patch_embed.seq.0.c.weight" in state:
            return SamConfig(encoder="tiny_vit", tiny_vit=_tiny_vit(state), **common)
    except (KeyError, IndexError) as error:
        raise WeightsError(f"{where}: tensor {error} is missing, so this is not a whole SAM") from None
    raise WeightsError(f"{where}: this image encoder is neither ViT nor TinyViT, and the file carries no configuration")


def check_sam_state(state: Mapping[str, Tensor], expected: Mapping[str, Tensor], where: str, *, hq: bool) -> None:
    """Every tensor accounted for: no name missing or left over, all shapes equal.

    Raises:
        WeightsError: with the names; one that says so for a plain SAM where an HQ-SAM is wanted, and the reverse.
    """
    has_hq = "mask_decoder.hf_token.weight" in state
    if hq and not has_hq:
        raise WeightsError(
            f"{where} is a plain SAM, not an HQ-SAM: the HQ branch (mask_decoder.{', '.join(HQ_PARTS)}) is missing. Use"
            " an HQ-SAM file, or say that you want a plain SAM: sam-vit-b=FILE, mobile-sam=FILE, ..."
        )
    if has_hq and not hq:
        raise WeightsError(f"{where} is an HQ-SAM, not a plain SAM: use it under its name or as a file")
    check_state(state, expected, where)


def _from_hugging_face(tensors: Mapping[str, Tensor], where: str) -> dict[str, Tensor]:
    state: dict[str, Tensor] = {}
    for key, value in tensors.items():
        name = key
        for pattern, replacement in _HUGGING_FACE:
            name = re.sub(pattern, replacement, name)
        if name in state and not torch.equal(state[name], value):  # the positional code is stored once or twice
            raise WeightsError(f"{where}: two different tensors for {name}")
        state[name] = value
    return state


def _count(state: Mapping[str, Tensor], prefix: str) -> int:
    """Number of modules ``prefix``.0, ``prefix``.1, ..."""
    return len({k[len(prefix) + 1 :].split(".")[0] for k in state if k.startswith(f"{prefix}.")})


def _vit(state: Mapping[str, Tensor]) -> VitConfig:
    dim, depth = state["image_encoder.pos_embed"].shape[3], _count(state, "image_encoder.blocks")
    tables = [state[f"image_encoder.blocks.{i}.attn.rel_pos_h"].shape for i in range(depth)]
    longest = max(t[0] for t in tables)
    return VitConfig(
        embed_dim=dim,
        depth=depth,
        num_heads=dim // tables[0][1],
        global_blocks=tuple(i for i, t in enumerate(tables) if t[0] == longest),
        window=(min(t[0] for t in tables) + 1) // 2,
        mlp_ratio=state["image_encoder.blocks.0.mlp.lin1.weight"].shape[0] / dim,
    )


def _tiny_vit(state: Mapping[str, Tensor]) -> TinyVitConfig:
    stages = range(_count(state, "image_encoder.layers"))
    biases = [state[f"image_encoder.layers.{s}.blocks.0.attn.attention_biases"].shape for s in stages[1:]]
    first = state["image_encoder.patch_embed.seq.2.c.weight"].shape[0]
    default = TinyVitConfig()
    return TinyVitConfig(
        dims=(first, *(state[f"image_encoder.layers.{s}.blocks.0.attn.norm.weight"].shape[0] for s in stages[1:])),
        depths=tuple(_count(state, f"image_encoder.layers.{s}.blocks") for s in stages),
        num_heads=(default.num_heads[0], *(b[0] for b in biases)),
        windows=(default.windows[0], *(round(b[1] ** 0.5) for b in biases)),
        num_classes=state["image_encoder.head.weight"].shape[0],
    )
