"""Which network a set of tensor names belongs to, for messages about files that are not the expected ones."""

from __future__ import annotations

from collections.abc import Collection

_KINDS = {  # the first that fits: names that begin with every part
    "a SAM 2": ("image_encoder.trunk", "sam_mask_decoder", "memory_attention"),
    "an HQ-SAM": ("image_encoder", "prompt_encoder", "mask_decoder.hf_token"),
    "a SAM": ("image_encoder", "prompt_encoder", "mask_decoder"),
    "a SAM in Hugging Face names": ("vision_encoder", "prompt_encoder", "mask_decoder"),
    "an XMem": ("key_encoder", "value_encoder", "decoder"),
    "a Cutie": ("pixel_encoder", "mask_encoder", "object_transformer"),
    "a Mask2Former": ("backbone", "sem_seg_head"),
}


def kind_of(names: Collection[str]) -> str:
    """The network in words, such as "an XMem"; for an unknown one its parts."""
    for kind, parts in _KINDS.items():
        if all(any(name.startswith(part) for name in names) for part in parts):
            return kind
    heads = sorted({name.partition(".")[0] for name in names})
    return f"a network of {', '.join(heads[:4])}{', ...' if len(heads) > 4 else ''}"
