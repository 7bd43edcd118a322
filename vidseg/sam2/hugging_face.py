"""Names of Hugging Face's Sam2VideoModel files -> the official names."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from vidseg.errors import WeightsError

_GAUSSIAN = "sam_prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"
_POINTS = "prompt_encoder.point_embed.weight"
_THREE_LAYERS = r"^(.*(?:iou_prediction_head|pred_obj_score_head|output_hypernetworks_mlps\.\d+|obj_ptr_proj))"

# Regular expression -> replacement, applied in this order.
_RULES: tuple[tuple[str, str], ...] = (
    (r"^(?:shared_image_embedding|prompt_encoder\.shared_embedding)\.positional_embedding$", _GAUSSIAN),
    (r"^vision_encoder\.backbone\.", "image_encoder.trunk."),
    (r"^vision_encoder\.neck\.convs\.(\d+)\.", r"image_encoder.neck.convs.\1.conv."),
    (r"^prompt_encoder\.", "sam_prompt_encoder."),
    (r"^mask_decoder\.", "sam_mask_decoder."),
    (r"^object_pointer_proj\.", "obj_ptr_proj."),
    (r"^temporal_positional_encoding_projection_layer\.", "obj_ptr_tpos_proj."),
    (r"^no_object_pointer$", "no_obj_ptr"),
    (r"^occlusion_spatial_embedding_parameter$", "no_obj_embed_spatial"),
    (r"^memory_temporal_positional_encoding$", "maskmem_tpos_enc"),
    (r"^no_memory_embedding$", "no_mem_embed"),
    (r"^no_memory_positional_encoding$", "no_mem_pos_enc"),
    (r"\.patch_embed\.projection\.", ".patch_embed.proj."),
    (r"\.mask_embed\.conv1\.", ".mask_downscaling.0."),
    (r"\.mask_embed\.layer_norm1\.", ".mask_downscaling.1."),
    (r"\.mask_embed\.conv2\.", ".mask_downscaling.3."),
    (r"\.mask_embed\.layer_norm2\.", ".mask_downscaling.4."),
    (r"\.mask_embed\.conv3\.", ".mask_downscaling.6."),
    (r"\.upscale_conv1\.", ".output_upscaling.0."),
    (r"\.upscale_layer_norm\.", ".output_upscaling.1."),
    (r"\.upscale_conv2\.", ".output_upscaling.3."),
    (r"\.mask_downsampler\.final_conv\.", ".mask_downsampler.encoder.12."),
    (r"^memory_encoder\.feature_projection\.", "memory_encoder.pix_feat_proj."),
    (r"^memory_encoder\.projection\.", "memory_encoder.out_proj."),
    (r"^memory_encoder\.memory_fuser\.", "memory_encoder.fuser."),
    (r"\.depthwise_conv\.", ".dwconv."),
    (r"\.pointwise_conv(\d)\.", r".pwconv\1."),
    (r"(\.fuser\.layers\.\d+)\.scale$", r"\1.gamma"),
    (_THREE_LAYERS + r"\.layers\.0\.", r"\1.layers.1."),
    (_THREE_LAYERS + r"\.proj_in\.", r"\1.layers.0."),
    (_THREE_LAYERS + r"\.proj_out\.", r"\1.layers.2."),
    (r"\.mlp\.proj_in\.", ".mlp.layers.0."),
    (r"\.mlp\.proj_out\.", ".mlp.layers.1."),
    (r"\.o_proj\.", ".out_proj."),
    (r"\.layer_norm", ".norm"),
)
_DOWNSAMPLER = re.compile(r"\.mask_downsampler\.layers\.(\d+)\.(conv|layer_norm)\.")


def official_names(tensors: Mapping[str, Tensor], where: str) -> dict[str, Tensor]:
    """The tensors of a Sam2VideoModel under the official names; ``where`` names the file in errors.

    Raises:
        WeightsError: two different tensors for one name.
    """
    state: dict[str, Tensor] = {}
    for key, value in tensors.items():
        if key == _POINTS:  # the four embeddings are rows of one
            state |= {f"sam_prompt_encoder.point_embeddings.{i}.weight": row for i, row in enumerate(value.split(1))}
            continue
        name = _DOWNSAMPLER.sub(_in_sequence, key)
        for pattern, replacement in _RULES:
            name = re.sub(pattern, replacement, name)
        if name in state and not torch.equal(state[name], value):  # the positional code is stored once or twice
            raise WeightsError(f"{where}: two different tensors for {name}")
        state[name] = value
    return state


def _in_sequence(match: re.Match[str]) -> str:
    place = 3 * int(match[1]) + (match[2] == "layer_norm")
    return f".mask_downsampler.encoder.{place}."
