"""What a SAM 2 network is made of: the eight published configurations, and overrides under their official names."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from vidseg.backbones.hiera import HieraConfig
from vidseg.errors import UsageError, did_you_mean


@dataclass(frozen=True, slots=True)
class Sam2Config:
    """One SAM 2 network and the rules of its video memory. The defaults are SAM 2.1 tiny."""

    trunk: HieraConfig = field(default_factory=HieraConfig)
    dim: int = 256
    """Width of embeddings, tokens and pointers."""
    memory_dim: int = 64
    """Channels of the spatial memory."""
    image_size: int = 1024
    """Images are squashed to this square."""
    attention_layers: int = 4
    attention_ff: int = 2048
    hq: bool = False
    """HQ-SAM 2: an HQ token in the mask decoder."""
    occlusion: bool = True
    """2.1: the memory of a frame without the object is marked (``no_obj_embed_spatial``)."""
    pointer_positions: bool = True
    """2.1: object pointers carry their distance in time (2.0: they have no position)."""
    num_maskmem: int = 7
    """Frames whose spatial memory is read: one prompted one and the last ``num_maskmem - 1``."""
    max_pointers: int = 16
    """Frames whose object pointers are read."""
    dynamic_multimask: bool = False
    """A single mask that is not stable gives way to the best of three."""
    stability_delta: float = 0.05
    stability_threshold: float = 0.98
    max_cond_frames: int = -1
    """Prompted frames that are read; -1 = all."""
    memory_stride: int = 1
    """Frames between those whose spatial memory is read."""
    binarize_prompted: bool = False
    """Masks of prompted frames enter memory as 0/1."""
    correct_as_cond: bool = False
    """Corrections of tracked frames become prompted frames, so that they last."""
    non_overlap_masks: bool = False
    """Every pixel of the output belongs to one object."""
    non_overlap_memory: bool = False
    """The same for the masks that enter memory (the batched predictor only)."""
    clear_around_prompts: bool = False
    """A prompt removes the spatial memory of the frames around it."""

    def __post_init__(self) -> None:
        """Refuse what cannot be built (UsageError)."""
        if self.image_size % 32 or self.image_size < 32:
            raise UsageError(f"SAM 2 image_size {self.image_size}: must be a multiple of 32")
        if self.dim % self.memory_dim:
            raise UsageError(f"SAM 2 memory width {self.memory_dim}: must divide the embedding width {self.dim}")
        if self.max_cond_frames != -1 and self.max_cond_frames < 2:
            raise UsageError(f"SAM 2 max_cond_frames_in_attn {self.max_cond_frames}: must be at least 2, or -1 for all")
        if self.memory_stride < 1:
            raise UsageError(f"SAM 2 memory_temporal_stride_for_eval {self.memory_stride}: must be at least 1")
        if len(self.trunk.windows) != len(self.trunk.stages):
            raise UsageError(f"SAM 2 window_spec {self.trunk.windows}: one window per stage is expected")

    @property
    def grid(self) -> int:
        """Cells along a side of the embedding."""
        return self.image_size // 16

    @property
    def prompt_dim(self) -> int:
        """Width of prompt tokens."""
        return self.dim

    @property
    def mask_in_channels(self) -> int:
        """Channels inside the embedding of mask prompts."""
        return 16

    def to_json(self) -> str:
        """The configuration as one line of JSON (kept in the metadata of safetensors files)."""
        return json.dumps(asdict(self), separators=(",", ":"))

    @classmethod
    def official(cls, name: str, overrides: Mapping[str, Any] | None = None) -> Sam2Config:
        """A published configuration, under the name of its official YAML file, with overrides under official names.

        Args:
            name: such as ``sam2.1_hiera_t``, ``sam2_hiera_b+``, ``sam2.1_hq_hiera_l``.
            overrides: dotted official names, such as ``image_encoder.trunk.embed_dim`` or ``max_cond_frames_in_attn``.
                Widths that official files repeat (``memory_attention.d_model``, ...) must agree with each other.

        Raises:
            UsageError: an unknown name, a value that this implementation does not have, or widths that do not agree.
        """
        if name not in OFFICIAL:
            raise UsageError(
                f"SAM 2 configuration '{name}'{did_you_mean(name, OFFICIAL)}: one of {', '.join(OFFICIAL)}"
            )
        return _overridden(OFFICIAL[name], overrides or {})


_TRUNKS = {
    "t": HieraConfig(),
    "s": HieraConfig(stages=(1, 2, 11, 2), global_blocks=(7, 10, 13)),
    "b+": HieraConfig(112, 2, (2, 3, 16, 3), (12, 16, 20), background=(14, 14)),
    "l": HieraConfig(144, 2, (2, 6, 36, 4), (23, 33, 43), windows=(8, 4, 16, 8)),
}
OFFICIAL: dict[str, Sam2Config] = {
    **{f"sam2.1_hiera_{size}": Sam2Config(trunk) for size, trunk in _TRUNKS.items()},
    **{f"sam2_hiera_{size}": Sam2Config(t, occlusion=False, pointer_positions=False) for size, t in _TRUNKS.items()},
    "sam2.1_hq_hiera_l": Sam2Config(_TRUNKS["l"], hq=True),
}
"""The published configurations under the names of their official YAML files."""

_FIELDS = {
    "image_size": "image_size",
    "num_maskmem": "num_maskmem",
    "max_obj_ptrs_in_encoder": "max_pointers",
    "max_cond_frames_in_attn": "max_cond_frames",
    "memory_temporal_stride_for_eval": "memory_stride",
    "binarize_mask_from_pts_for_mem_enc": "binarize_prompted",
    "add_all_frames_to_correct_as_cond": "correct_as_cond",
    "non_overlap_masks": "non_overlap_masks",
    "non_overlap_masks_for_mem_enc": "non_overlap_memory",
    "clear_non_cond_mem_around_input": "clear_around_prompts",
    "no_obj_embed_spatial": "occlusion",
    "add_tpos_enc_to_obj_ptrs": "pointer_positions",
    "sam_mask_decoder_extra_args.dynamic_multimask_via_stability": "dynamic_multimask",
    "sam_mask_decoder_extra_args.dynamic_multimask_stability_delta": "stability_delta",
    "sam_mask_decoder_extra_args.dynamic_multimask_stability_thresh": "stability_threshold",
    "memory_attention.num_layers": "attention_layers",
    "memory_attention.layer.dim_feedforward": "attention_ff",
}
_TRUNK_FIELDS = {
    "image_encoder.trunk.embed_dim": "embed_dim",
    "image_encoder.trunk.num_heads": "num_heads",
    "image_encoder.trunk.stages": "stages",
    "image_encoder.trunk.global_att_blocks": "global_blocks",
    "image_encoder.trunk.window_spec": "windows",
    "image_encoder.trunk.window_pos_embed_bkg_spatial_size": "background",
}
_WIDTHS = {  # names of one width, repeated
    "dim": (
        "image_encoder.neck.d_model",
        "image_encoder.neck.position_encoding.num_pos_feats",
        "memory_attention.d_model",
        "memory_attention.layer.d_model",
        "memory_attention.layer.self_attention.embedding_dim",
        "memory_attention.layer.cross_attention.embedding_dim",
        "memory_encoder.in_dim",
        "memory_encoder.mask_downsampler.embed_dim",
        "memory_encoder.fuser.layer.dim",
    ),
    "memory_dim": (
        "memory_attention.layer.cross_attention.kv_in_dim",
        "memory_encoder.out_dim",
        "memory_encoder.position_encoding.num_pos_feats",
    ),
}
_DERIVED: dict[str, Callable[[Sam2Config], Any]] = {
    "image_encoder.neck.backbone_channel_list": lambda c: list(reversed(c.trunk.dims)),
    "memory_attention.layer.self_attention.feat_sizes": lambda c: [c.grid, c.grid],
    "memory_attention.layer.cross_attention.feat_sizes": lambda c: [c.grid, c.grid],
    "proj_tpos_enc_in_obj_ptrs": lambda c: c.pointer_positions,
    "use_signed_tpos_enc_to_obj_ptrs": lambda c: c.pointer_positions,
}
_FIXED: dict[str, Any] = {
    "sigmoid_scale_for_mem_enc": 20.0,
    "sigmoid_bias_for_mem_enc": -10.0,
    "use_mask_input_as_output_without_sam": True,
    "directly_add_no_mem_embed": True,
    "use_high_res_features_in_sam": True,
    "multimask_output_in_sam": True,
    "multimask_min_pt_num": 0,
    "multimask_max_pt_num": 1,
    "multimask_output_for_tracking": True,
    "use_multimask_token_for_obj_ptr": True,
    "iou_prediction_use_sigmoid": True,
    "use_obj_ptrs_in_encoder": True,
    "only_obj_ptrs_in_the_past_for_eval": True,
    "pred_obj_scores": True,
    "pred_obj_scores_mlp": True,
    "fixed_no_obj_ptr": True,
    "soft_no_obj_ptr": False,
    "use_mlp_for_obj_ptr_proj": True,
    "fill_hole_area": 0,
}
"""What all published networks have in common; nothing else is implemented."""


def _overridden(config: Sam2Config, overrides: Mapping[str, Any]) -> Sam2Config:
    values: dict[str, Any] = {}
    trunk: dict[str, Any] = {}
    widths = {name: field for field, names in _WIDTHS.items() for name in names}
    for name, value in overrides.items():
        if name in _FIELDS:
            values[_FIELDS[name]] = value
        elif name in _TRUNK_FIELDS:
            trunk[_TRUNK_FIELDS[name]] = tuple(value) if isinstance(value, (list, tuple)) else value
        elif name in widths:
            if values.setdefault(widths[name], value) != value:
                raise UsageError(f"SAM 2 override {name} = {value}: the same width is {values[widths[name]]} elsewhere")
        elif name not in _DERIVED and name not in _FIXED:
            known = [*_FIELDS, *_TRUNK_FIELDS, *widths, *_DERIVED, *_FIXED]
            raise UsageError(f"SAM 2 override '{name}' is not known{did_you_mean(name, known)}")
    result = replace(config, trunk=replace(config.trunk, **trunk), **values)
    for name, value in overrides.items():
        wanted = _DERIVED[name](result) if name in _DERIVED else _FIXED.get(name, value)
        if value != wanted and list_of(value) != wanted:
            raise UsageError(f"SAM 2 override {name} = {value!r}: with the other settings only {wanted!r} is possible")
    return result


def list_of(value: Any) -> Any:
    """A tuple as a list, anything else as it is."""
    return list(value) if isinstance(value, tuple) else value
